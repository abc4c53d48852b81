"""A platform over another environment: what it shares, what is its own, and that it stays so."""

import dataclasses
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from testbed import environment as environments
from testbed import paths, private, startup
from testbed.environment import Environment, Settings
from testbed.parts import HOST, PARTS, find_part
from tests.unit.testbed.conftest import Sleeper

ENGINES = ("postgresql", "clickhouse", "qdrant", "redis")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return environments.create("host", Settings(coverage=True), None, "/nowhere/supervisor.sock")


@pytest.fixture
def engines(host: Environment) -> Iterator[dict[str, socket.socket]]:
    """What listens at the ports of the host's engines, and answers nothing; the host and a guest are described."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(socket.create_server((HOST, 0), backlog=8)) for name in ENGINES}
        ports = {name: server.getsockname()[1] for name, server in servers.items()}
        placed = dataclasses.replace(host, ports={**host.ports, **ports})
        placed.save()
        private.describe("guest", placed).save()
        for server in servers.values():
            server.setblocking(False)
        yield servers


def cleaned() -> list[str]:
    """What is said while the guest is cleaned, which leaves nothing of it here."""
    said: list[str] = []
    startup.clean("guest", said.append)
    assert not paths.state_dir("guest").exists()
    assert not paths.lock_file("guest").exists()
    return said


def supervise(host: Environment, sleeper: Sleeper) -> None:
    """Let the host's supervisor run."""
    process = sleeper(arguments=[str(host.state_dir / "supervisord.conf")])
    (host.state_dir / "supervisord.pid").write_text(str(process.pid))


def test_it_runs_the_platform_alone_and_borrows_the_rest(host: Environment) -> None:
    mine = private.describe("mine-1", host, {"postgresql": 20001})
    assert {part.kind for part in mine.parts} == {"service", "agent", "runtime"}
    borrowed = {part.name for part in PARTS} - {part.name for part in mine.parts} - {"postgresql"}
    assert {name: mine.ports[name] for name in borrowed} == {name: host.ports[name] for name in borrowed}
    assert mine.ports["postgresql"] == 20001
    assert not {part.name for part in mine.parts if mine.ports.get(part.name) == host.ports.get(part.name)} - {
        "runtime"
    }


def test_its_data_are_its_own_and_its_secrets_too(host: Environment) -> None:
    mine, theirs = (each.variables(find_part("orchestrator")) for each in (private.describe("mine-1", host), host))
    for variable in ("CLICKHOUSE_DATABASE", "QDRANT_COLLECTION", "REDIS_PREFIX", "POSTGRESQL_URL", "ADMIN_TOKEN"):
        assert mine[f"OPTIINFRA_{variable}"] != theirs[f"OPTIINFRA_{variable}"]
    assert mine["OPTIINFRA_POSTGRESQL_URL"].endswith("/optiinfra_mine_1")
    assert mine["OPTIINFRA_REDIS_URL"] == theirs["OPTIINFRA_REDIS_URL"]


def test_it_knows_the_words_of_the_stores_and_no_others_of_its_host(host: Environment) -> None:
    mine = private.describe("mine", host).credentials
    shared = {word for word in mine if mine[word] == host.credentials[word]}
    assert shared == {word for word in mine if word.startswith(("postgresql_", "clickhouse_", "redis_", "qdrant_"))}


def test_settings_can_be_changed(host: Environment) -> None:
    mine = private.describe("mine", host, changed={"OPTIMIZATION_DEADLINE_SECONDS": "5"})
    assert mine.variables(find_part("orchestrator"))["OPTIINFRA_OPTIMIZATION_DEADLINE_SECONDS"] == "5"


def test_it_is_read_and_started_again_as_it_was(host: Environment) -> None:
    mine = private.describe("mine", host, {"redis": 20002}, {"SWEEP_SECONDS": "1"})
    mine.state_dir.mkdir(parents=True)
    mine.save()
    found = environments.load("mine")
    assert found == mine
    again = environments.create("mine", Settings(), found, "/elsewhere/supervisor.sock")
    assert (again.over, again.namespace, again.ports, again.changed) == (
        mine.over,
        mine.namespace,
        mine.ports,
        mine.changed,
    )
    assert again.supervisor_socket == "/elsewhere/supervisor.sock"


def test_whoever_has_the_ports_of_a_host_that_does_not_run_is_not_spoken_to(
    engines: dict[str, socket.socket],
) -> None:
    assert cleaned() == ["what 'guest' has in the engines of 'host', which is not running, stays there"]
    for server in engines.values():
        with pytest.raises(BlockingIOError):
            server.accept()


def test_engines_that_refuse_or_hang_are_named_and_hinder_nobody(
    host: Environment, engines: dict[str, socket.socket], sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervise(host, sleeper)
    monkeypatch.setattr(private, "CALL_SECONDS", 1.0)
    redis = engines["redis"]
    for server in engines.values():
        if server is not redis:
            server.close()
    said = cleaned()
    assert [line.partition(" could not be removed: ")[0] for line in said] == [
        f"what 'guest' has in {engine} of 'host'" for engine in ENGINES
    ]
    redis.accept()[0].close()
    with pytest.raises(BlockingIOError):  # asked once: one deadline is enough
        redis.accept()


@pytest.mark.parametrize("over", ["gone", "broken", "", "../host"])
def test_a_host_that_is_gone_or_cannot_be_read_hinders_nobody(host: Environment, over: str) -> None:
    dataclasses.replace(private.describe("guest", host), over=over).save()
    (paths.environments_dir() / "broken").mkdir()
    environments.description("broken").write_text("{")
    said = cleaned()
    assert len(said) == (over != "gone")
    assert all(f"of {over!r} stays there" in line for line in said)
