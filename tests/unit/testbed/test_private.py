"""A private platform on another environment: what is shared, what is private, and its removal."""

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
from tests.helpers.processes import Sleeper

ENGINES = ("postgresql", "clickhouse", "qdrant", "redis")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return environments.create("host", Settings(coverage=True), None, "/nowhere/supervisor.sock")


@pytest.fixture
def engines(host: Environment) -> Iterator[dict[str, socket.socket]]:
    """Sockets on the ports of the host's engines that answer nothing; the host and a guest are described."""
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
    """Clean the guest and return the messages."""
    said: list[str] = []
    startup.clean("guest", said.append)
    assert not paths.state_dir("guest").exists()
    assert not paths.lock_file("guest").exists()
    return said


def supervise(host: Environment, sleeper: Sleeper) -> None:
    """Let the host's supervisor run."""
    process = sleeper(arguments=[str(host.state_dir / "supervisord.conf")])
    (host.state_dir / "supervisord.pid").write_text(str(process.pid))


def test_private_platform_runs_services_and_shares_the_other_parts(host: Environment) -> None:
    mine = private.describe("mine-1", host, {"postgresql": 20001})
    assert {part.kind for part in mine.parts} == {"service", "agent", "runtime"}
    borrowed = {part.name for part in PARTS} - {part.name for part in mine.parts} - {"postgresql"}
    assert {name: mine.ports[name] for name in borrowed} == {name: host.ports[name] for name in borrowed}
    assert mine.ports["postgresql"] == 20001
    assert not {part.name for part in mine.parts if mine.ports.get(part.name) == host.ports.get(part.name)} - {
        "runtime"
    }


def test_private_platform_without_agents_runs_the_other_services(host: Environment) -> None:
    private.describe("mine", host, agents=False).save()
    mine = environments.load("mine")
    assert mine is not None
    assert {part.name for part in mine.parts} == {"orchestrator", "portal", "runtime"}
    assert not [name for name in mine.urls() if name.endswith("-agent")]


def test_private_platform_has_its_own_databases_and_secrets(host: Environment) -> None:
    mine, theirs = (each.variables(find_part("orchestrator")) for each in (private.describe("mine-1", host), host))
    for variable in ("CLICKHOUSE_DATABASE", "QDRANT_COLLECTION", "REDIS_PREFIX", "POSTGRESQL_URL", "ADMIN_TOKEN"):
        assert mine[f"OPTIINFRA_{variable}"] != theirs[f"OPTIINFRA_{variable}"]
    assert mine["OPTIINFRA_POSTGRESQL_URL"].endswith("/optiinfra_mine_1")
    assert mine["OPTIINFRA_REDIS_URL"] == theirs["OPTIINFRA_REDIS_URL"]


def test_private_platform_shares_only_store_credentials_with_its_host(host: Environment) -> None:
    mine = private.describe("mine", host).credentials
    shared = {secret for secret in mine if mine[secret] == host.credentials[secret]}
    assert shared == {
        secret for secret in mine if secret.startswith(("postgresql_", "clickhouse_", "redis_", "qdrant_"))
    }


def test_private_platform_can_change_settings(host: Environment) -> None:
    mine = private.describe("mine", host, changed={"OPTIMIZATION_DEADLINE_SECONDS": "5"})
    assert mine.variables(find_part("orchestrator"))["OPTIINFRA_OPTIMIZATION_DEADLINE_SECONDS"] == "5"


def test_private_platform_is_read_and_started_again_unchanged(host: Environment) -> None:
    mine = private.describe("mine", host, {"redis": 20002}, {"RECOVERY_SECONDS": "1"})
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


def test_clean_does_not_call_the_ports_of_a_host_that_is_not_running(
    engines: dict[str, socket.socket],
) -> None:
    assert cleaned() == ["data of 'guest' stays in the engines of 'host', which is not running"]
    for server in engines.values():
        with pytest.raises(BlockingIOError):
            server.accept()


def test_clean_reports_engines_that_refuse_or_hang(
    host: Environment, engines: dict[str, socket.socket], sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervise(host, sleeper)
    monkeypatch.setattr(private, "CALL_SECONDS", 1.0)
    redis = engines["redis"]
    for server in engines.values():
        if server is not redis:
            server.close()
    said = cleaned()
    assert [line.partition(": ")[0] for line in said] == [
        f"data of 'guest' could not be removed from {engine} of 'host'" for engine in ENGINES
    ]
    redis.accept()[0].close()
    with pytest.raises(BlockingIOError):  # called once: one timeout is enough
        redis.accept()


@pytest.mark.parametrize("over", ["gone", "broken", "", "../host"])
def test_clean_succeeds_when_the_host_is_gone_or_cannot_be_read(host: Environment, over: str) -> None:
    dataclasses.replace(private.describe("guest", host), over=over).save()
    (paths.environments_dir() / "broken").mkdir()
    environments.description("broken").write_text("{")
    said = cleaned()
    assert len(said) == (over != "gone")
    assert all(f"stays in the engines of {over!r}" in line for line in said)
