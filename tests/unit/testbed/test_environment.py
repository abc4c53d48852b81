"""Environments: names, ports, descriptions, and the variables of their processes."""

import random
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import environment as environments
from testbed import paths
from testbed.engines.settings import private_folder
from testbed.environment import Environment, Settings, SetupError
from testbed.parts import PARTS, find_part
from testbed.supervision import new_socket


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # environments that run have their ports in the real one
    for part in PARTS:
        if part.port_variable:
            monkeypatch.delenv(part.port_variable, raising=False)


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def create(name: str = "mine", previous: Environment | None = None) -> Environment:
    return environments.create(name, Settings(), previous, "/nowhere/supervisor.sock")


def test_choose_ports_gives_fixed_ports_to_the_default_name_only() -> None:
    assert environments.choose_ports("e2e")["orchestrator"] == 8001
    ports = environments.choose_ports("mine")
    assert all(port in environments.FREE_PORTS for port in ports.values())
    assert len(set(ports.values())) == len(ports)


def test_choose_ports_is_overridden_by_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIINFRA_COST_AGENT_PORT", "9011")
    assert environments.choose_ports("e2e")["cost-agent"] == 9011


@pytest.mark.parametrize("value", ["", "http", "0", "70000"])
def test_choose_ports_refuses_an_invalid_port(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OPTIINFRA_REDIS_PORT", value)
    with pytest.raises(SetupError, match="OPTIINFRA_REDIS_PORT"):
        environments.choose_ports("e2e")


def test_choose_ports_refuses_one_port_for_two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIINFRA_REDIS_PORT", "8001")
    with pytest.raises(SetupError, match="8001"):
        environments.choose_ports("e2e")


def test_is_free_is_false_for_a_port_that_is_listened_on(listener: int) -> None:
    assert not environments.is_free(listener)


def test_choose_ports_avoids_ports_of_described_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "is_free", lambda _port: True)  # nothing listens yet
    monkeypatch.setattr(random, "sample", lambda ports, k: ports[:k])  # both would choose the same
    first = create("first")
    first.save()
    for name, text in (("broken", "{"), ("Not a name", "{}")):
        (paths.environments_dir() / name).mkdir()
        (paths.environments_dir() / name / "environment.json").write_text(text)
    assert environments.reserved_ports() == set(first.ports.values())
    assert set(create("second").ports.values()).isdisjoint(first.ports.values())


def test_choose_ports_avoids_ports_of_environments_of_other_checkouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "is_free", lambda _port: True)
    monkeypatch.setattr(random, "sample", lambda ports, k: ports[:k])
    first = environments.create("mine", Settings(), None, new_socket("mine"))
    first.save()
    monkeypatch.setattr(paths, "ROOT", tmp_path / "other-checkout")
    private_folder("run", "starting-1")  # has no ports yet
    assert environments.reserved_ports() == set(first.ports.values())
    assert set(create().ports.values()).isdisjoint(first.ports.values())


@pytest.mark.parametrize("name", ["", "../x", "Upper", "-x", "a" * 60])
def test_state_dir_refuses_an_invalid_name(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name an environment"):
        paths.state_dir(name)


def test_saved_description_is_private_and_can_be_loaded() -> None:
    made = create()
    made.state_dir.mkdir(parents=True)
    made.save()
    assert environments.load("mine") == made
    assert (made.state_dir / "environment.json").stat().st_mode & 0o777 == 0o600


def test_load_of_an_unreadable_description_names_the_remedy() -> None:
    folder = paths.state_dir("mine")
    folder.mkdir(parents=True)
    (folder / "environment.json").write_text("{}")
    with pytest.raises(SetupError, match="invoke clean --name mine"):
        environments.load("mine")


def test_load_returns_none_when_the_description_is_removed_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    create().save()
    read = Path.read_text

    def unlink_and_read(path: Path) -> str:
        path.unlink()
        return read(path)

    monkeypatch.setattr(Path, "read_text", unlink_and_read)
    assert environments.load("mine") is None


def test_create_keeps_the_secrets_of_the_previous_description() -> None:
    first = create()
    again = create(previous=first)
    assert again.credentials == first.credentials
    assert create().credentials != first.credentials


def test_env_id_depends_on_checkout_and_name_only() -> None:
    assert create().env_id == create().env_id
    assert create("other").env_id != create().env_id


def test_variables_of_agents_hold_only_the_readers_credentials() -> None:
    made = create()
    seen = made.variables(find_part("cost-agent"))
    assert seen["OPTIINFRA_CLICKHOUSE_USER"] == "optiinfra_reader"
    assert seen["OPTIINFRA_CLICKHOUSE_PASSWORD"] == made.credentials["clickhouse_reader_password"]
    assert seen["OPTIINFRA_QDRANT_API_KEY"] == made.credentials["qdrant_read_only_api_key"]
    leaked = {made.credentials[key] for key in ("postgresql_password", "admin_token", "qdrant_api_key")}
    assert not leaked & set(seen.values())


def test_variables_of_the_orchestrator_point_to_the_cloud_front() -> None:
    made = create()
    assert made.variables(find_part("orchestrator"))["OPTIINFRA_AWS_ENDPOINT_URL"] == made.url("cloud-front")


def test_scrubbed_drops_the_callers_credentials() -> None:
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


def test_settings_refuse_an_unknown_backend() -> None:
    with pytest.raises(SetupError, match="no backend is called 'nomad': use embedded or compose"):
        Settings.chosen("nomad", coverage=False, fleet_speed=None)
