"""The supervisor: its configuration, stopping it, and the exits in its log."""

import configparser
import contextlib
import os
import shlex
import xmlrpc.client
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from supervisor.datatypes import dict_of_key_value_pairs

from testbed import environment as environments
from testbed import paths, supervision
from testbed.environment import Environment, Settings
from testbed.parts import find_part, programs
from testbed.supervision import Exit, Supervisor
from tests.helpers.processes import Sleeper

LOG = """\
2026-11-22 13:51:21,548 INFO spawned: 'redis' with pid 6466
2026-11-22 13:51:50,091 WARN exited: redis (terminated by SIGKILL; not expected)
2026-11-22 13:51:51,094 INFO spawned: 'redis' with pid 6700
2026-11-22 13:52:04,001 INFO exited: portal (exit status 0; expected)
2026-11-22 13:52:05,070 INFO stopped: redis (exit status 0)
"""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.setattr(paths, "ROOT", tmp_path / "a folder with spaces and 100% trouble")
    return environments.create("mine", Settings(coverage=True), None, "/short/supervisor.sock")


def parsed(environment: Environment) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()  # it interpolates `%` as supervisor does
    parser.read_string(supervision.configuration(environment))
    return parser


def test_configuration_has_a_program_for_every_process(environment: Environment) -> None:
    names = {section.removeprefix("program:") for section in parsed(environment).sections() if "program:" in section}
    assert names == set(programs())


def test_configuration_escapes_spaces_and_percent_signs(environment: Environment) -> None:
    section = parsed(environment)["program:redis"]
    assert section["directory"] == str(paths.ROOT)
    assert section["stdout_logfile"] == str(environment.state_dir / "logs" / "redis.log")
    assert f'OPTIINFRA_STATE_DIR="{environment.state_dir}"' in section["environment"]


def test_configuration_measures_coverage_of_services_only(environment: Environment) -> None:
    parser = parsed(environment)
    measured = shlex.split(parser["program:orchestrator"]["command"])
    assert measured[1:] == ["-m", "coverage", "run", "-m", "optiinfra.orchestrator"]
    assert "COVERAGE_FILE" in parser["program:orchestrator"]["environment"]
    assert shlex.split(parser["program:redis"]["command"])[1:] == ["-m", "testbed.engines.redis"]


def test_configuration_stops_postgresql_without_its_process_group(environment: Environment) -> None:
    section = parsed(environment)["program:postgresql"]
    assert (section["stopsignal"], section["stopasgroup"], section["killasgroup"]) == ("INT", "false", "false")
    assert parsed(environment)["program:portal"]["stopasgroup"] == "true"


@pytest.mark.parametrize("text", ["", "none", "99999999", str(os.getpid())], ids=["empty", "word", "nobody", "another"])
def test_pid_is_none_for_a_stale_pid_file(environment: Environment, text: str) -> None:
    environment.state_dir.mkdir(parents=True)
    (environment.state_dir / "supervisord.pid").write_text(text)
    assert Supervisor(environment).pid is None


def test_stop_succeeds_when_the_supervisor_becomes_a_zombie(
    environment: Environment, sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = sleeper(arguments=[str(environment.state_dir / "supervisord.conf")])
    environment.state_dir.mkdir(parents=True)
    (environment.state_dir / "supervisord.pid").write_text(str(process.pid))

    class Remote:
        def stopProcess(self, name: str, _wait: bool) -> None:  # noqa: N802  (its name)
            raise xmlrpc.client.Fault(70, f"NOT_RUNNING: {name}")

        def getAllProcessInfo(self) -> list[object]:  # noqa: N802
            return []

        def shutdown(self) -> None:
            process.kill()

    monkeypatch.setattr(Supervisor, "remote", lambda _self: contextlib.nullcontext(Remote()))
    monkeypatch.setattr(supervision, "STOP_SECONDS", 2)
    Supervisor(environment).stop()
    assert process.status() == psutil.STATUS_ZOMBIE


def test_configuration_refuses_a_value_that_cannot_be_quoted(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "ROOT", Path("""/a "quoted" folder, isn't it"""))
    with pytest.raises(ValueError, match="quotation mark"):
        supervision.configuration(environment)


def test_configuration_passes_a_list_as_json(environment: Environment) -> None:
    keys = '["a key", "another one, with 100%"]'
    text = supervision.configuration(replace(environment, changed={"PREVIOUS_TOKEN_SIGNING_KEYS": keys}))
    parsed = configparser.ConfigParser()
    parsed.read_string(text)
    passed = dict_of_key_value_pairs(parsed["program:orchestrator"]["environment"])
    assert passed["OPTIINFRA_PREVIOUS_TOKEN_SIGNING_KEYS"] == keys


def test_read_exits_returns_unexpected_exits_with_time_and_reason(tmp_path: Path) -> None:
    log = tmp_path / "supervisord.log"
    log.write_text(LOG)
    assert supervision.read_exits(log) == [
        Exit("redis", datetime(2026, 11, 22, 13, 51, 50, tzinfo=UTC), "terminated by SIGKILL; not expected"),
        Exit("portal", datetime(2026, 11, 22, 13, 52, 4, tzinfo=UTC), "exit status 0; expected"),
    ]
    assert supervision.read_exits(tmp_path / "missing.log") == []


def test_recent_returns_exits_of_the_last_minute() -> None:
    now = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
    ages = [10, 59, 61]
    exits = [Exit("redis", now - timedelta(seconds=age), "x") for age in ages] + [Exit("portal", now, "x")]
    assert len(supervision.recent(exits, "redis", now)) == 2


def test_configuration_gives_a_program_only_its_own_secrets(environment: Environment) -> None:
    text = parsed(environment)["program:portal"]["environment"]
    assert environment.credentials["portal_session_key"] in text
    assert environment.credentials["postgresql_password"] not in text
    assert find_part("portal").variables == ("PORTAL_SESSION_KEY", "PORTAL_SECRET")
