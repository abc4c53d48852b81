"""A platform over another environment: what it shares, what is its own, and that it stays so."""

from pathlib import Path

import pytest

from testbed import environment as environments
from testbed import paths, private
from testbed.environment import Environment, Settings
from testbed.parts import PARTS, named


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return environments.create("host", Settings(coverage=True), None, "/nowhere/supervisor.sock")


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
    mine, theirs = (each.variables(named("orchestrator")) for each in (private.describe("mine-1", host), host))
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
    assert mine.variables(named("orchestrator"))["OPTIINFRA_OPTIMIZATION_DEADLINE_SECONDS"] == "5"


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
