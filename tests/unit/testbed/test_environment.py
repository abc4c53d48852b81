"""Names, ports, variables, and what children may see of the caller's environment."""

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import environment as environments
from testbed import paths
from testbed.environment import Environment, Settings, SetupError
from testbed.parts import PARTS, find_part


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    for part in PARTS:
        if part.port_variable:
            monkeypatch.delenv(part.port_variable, raising=False)


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def create(name: str = "mine", previous: Environment | None = None) -> Environment:
    return environments.create(name, Settings(), previous, "/nowhere/supervisor.sock")


def test_only_the_default_name_has_the_fixed_ports() -> None:
    assert environments.choose_ports("e2e")["orchestrator"] == 8001
    ports = environments.choose_ports("mine")
    assert all(port in environments.FREE_PORTS for port in ports.values())
    assert len(set(ports.values())) == len(ports)


def test_a_variable_overrides_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIINFRA_COST_AGENT_PORT", "9011")
    assert environments.choose_ports("e2e")["cost-agent"] == 9011


@pytest.mark.parametrize("value", ["", "http", "0", "70000"])
def test_what_is_no_port_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OPTIINFRA_REDIS_PORT", value)
    with pytest.raises(SetupError, match="OPTIINFRA_REDIS_PORT"):
        environments.choose_ports("e2e")


def test_one_port_for_two_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIINFRA_REDIS_PORT", "8001")
    with pytest.raises(SetupError, match="8001"):
        environments.choose_ports("e2e")


def test_a_port_somebody_listens_on_is_not_free(listener: int) -> None:
    assert not environments.is_free(listener)


def test_a_port_that_another_environment_is_described_with_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "is_free", lambda _port: True)  # nothing listens yet
    monkeypatch.setattr(random, "sample", lambda ports, k: ports[:k])  # both would take the same
    first = create("first")
    first.save()
    for name, text in (("broken", "{"), ("Not a name", "{}")):
        (paths.environments_dir() / name).mkdir()
        (paths.environments_dir() / name / "environment.json").write_text(text)
    assert environments.promised_ports() == set(first.ports.values())
    assert set(create("second").ports.values()).isdisjoint(first.ports.values())


@pytest.mark.parametrize("name", ["", "../x", "Upper", "-x", "a" * 60])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name an environment"):
        paths.state_dir(name)


def test_what_was_saved_is_loaded_and_private() -> None:
    made = create()
    made.state_dir.mkdir(parents=True)
    made.save()
    assert environments.load("mine") == made
    assert (made.state_dir / "environment.json").stat().st_mode & 0o777 == 0o600


def test_an_unreadable_description_says_how_to_get_rid_of_it() -> None:
    folder = paths.state_dir("mine")
    folder.mkdir(parents=True)
    (folder / "environment.json").write_text("{}")
    with pytest.raises(SetupError, match="invoke clean --name mine"):
        environments.load("mine")


def test_a_description_that_is_removed_while_it_is_read_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    create().save()
    read = Path.read_text

    def too_late(path: Path) -> str:
        path.unlink()
        return read(path)

    monkeypatch.setattr(Path, "read_text", too_late)
    assert environments.load("mine") is None


def test_secrets_are_kept_so_that_kept_data_stays_readable() -> None:
    first = create()
    again = create(previous=first)
    assert again.credentials == first.credentials
    assert create().credentials != first.credentials


def test_the_mark_depends_on_checkout_and_name_alone() -> None:
    assert create().env_id == create().env_id
    assert create("other").env_id != create().env_id


def test_agents_get_the_readers_credentials_under_the_common_names() -> None:
    made = create()
    seen = made.variables(find_part("cost-agent"))
    assert seen["OPTIINFRA_CLICKHOUSE_USER"] == "optiinfra_reader"
    assert seen["OPTIINFRA_CLICKHOUSE_PASSWORD"] == made.credentials["clickhouse_reader_password"]
    assert seen["OPTIINFRA_QDRANT_API_KEY"] == made.credentials["qdrant_read_only_api_key"]
    leaked = {made.credentials[key] for key in ("postgresql_password", "admin_token", "qdrant_api_key")}
    assert not leaked & set(seen.values())


def test_the_orchestrator_reaches_the_cloud_through_the_front() -> None:
    made = create()
    assert made.variables(find_part("orchestrator"))["OPTIINFRA_AWS_ENDPOINT_URL"] == made.url("cloud-front")


def test_children_see_nothing_of_the_callers_credentials() -> None:
    caller = {
        "PATH": "/bin",
        "AWS_ACCESS_KEY_ID": "x",
        "OPTIINFRA_POSTGRESQL_URL": "postgresql://elsewhere",
        "OPTIINFRA_RATE_LIMIT_API": "5",
        "GITHUB_TOKEN": "x",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    seen = environments.scrubbed(caller)
    assert seen.keys() == {"PATH", "OPTIINFRA_RATE_LIMIT_API", "PYTHONUNBUFFERED", "TZ"}


@pytest.mark.parametrize(("backend", "reason"), [("compose", "later release"), ("nomad", "no backend is called")])
def test_an_unknown_backend_is_refused(backend: str, reason: str) -> None:
    with pytest.raises(SetupError, match=reason):
        Settings.chosen(backend, coverage=False, fleet_speed=None)
