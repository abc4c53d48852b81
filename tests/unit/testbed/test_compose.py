"""Compose: what an environment adds to the Compose file, and how containers are described."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed import compose, docker, images, paths, private, service_images
from testbed import environment as environments
from testbed.environment import Environment, Settings
from testbed.parts import PARTS, programs

FILE = yaml.safe_load(compose.FILE.read_text())


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here calls docker."""
    monkeypatch.setattr(images, "inspect", lambda _tag: None)


@pytest.fixture
def made() -> Environment:
    return environments.create("boxes", Settings("compose"), None, "")


def test_file_has_a_service_for_each_program_on_the_manifests_ports() -> None:
    services = FILE["services"]
    assert services.keys() == programs(PARTS).keys() | {compose.ONE_SHOT}
    for part in PARTS:
        published = f"127.0.0.1:${{{part.port_variable}:-{part.port}}}:{part.container_port}"
        assert part.port is None or published in services[part.program]["ports"]


def test_file_has_limits_and_health_checks_and_images_that_a_variable_overrides() -> None:
    own = programs(PARTS)
    for name, service in FILE["services"].items():
        assert "mem_limit" in service, name
        variable = "ORCHESTRATOR" if name == compose.ONE_SHOT else name.upper().replace("-", "_")
        assert service["image"].startswith(f"${{OPTIINFRA_{variable}_IMAGE:-"), name
        if name in own and own[name].kind in ("store", "cloud"):
            assert service["healthcheck"]["test"], name
            assert service["image"].endswith(f":-{service_images.OFFICIAL[name]}}}")
        else:
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
    assert "name" not in FILE, "Compose 2.0 refuses it"
    assert (compose.FILE.parent / ".env").read_text() == f"COMPOSE_PROJECT_NAME={compose.project_name('e2e')}\n"


def test_overrides_address_parts_by_names_of_their_environment(made: Environment) -> None:
    added = compose.overrides(made)
    orchestrator = added["services"]["orchestrator"]
    variables = orchestrator["environment"]
    assert variables["OPTIINFRA_POSTGRESQL_URL"].endswith("@postgresql.boxes:5432/optiinfra")
    assert variables["OPTIINFRA_CLICKHOUSE_URL"] == "http://clickhouse.boxes:8123"
    assert variables["OPTIINFRA_AWS_ENDPOINT_URL"] == "http://sandbox.boxes:8022"
    assert variables["OPTIINFRA_HOST"] == "0.0.0.0"  # noqa: S104
    assert variables["OPTIINFRA_AGENT_NETWORKS"] == f"{made.subnet},127.0.0.0/8"
    assert orchestrator["networks"] == {"environment": {"aliases": ["orchestrator.boxes"]}}
    assert added["networks"]["environment"]["ipam"]["config"] == [{"subnet": str(made.subnet)}]


def test_overrides_give_the_runtime_its_folders_only_and_other_services_none(made: Environment) -> None:
    services = compose.overrides(made)["services"]
    state = made.state_dir
    assert services["runtime"]["volumes"] == [
        f"{state}/runtime:{state}/runtime:ro",
        f"{state}/runtime-state:{state}/runtime-state:rw",
        f"{paths.ROOT}/fixtures/golden_prompts:{paths.ROOT}/fixtures/golden_prompts:ro",
    ]
    assert not any(service.get("volumes") for name, service in services.items() if name != "runtime")


def test_overrides_with_coverage_run_each_module_in_the_test_image(made: Environment) -> None:
    measured = replace(made, settings=Settings("compose", coverage=True))
    services = compose.overrides(measured)["services"]
    agent, folder = services["cost-agent"], f"{made.state_dir}/coverage"
    assert agent["image"] == f"optiinfra/test:{service_images.tag()}"
    assert agent["command"] == ["-m", "optiinfra.agents.cost_agent"]
    assert agent["environment"]["COVERAGE_FILE"] == f"{folder}/.coverage"
    assert agent["volumes"] == [f"{folder}:{folder}:rw"]
    assert services["sandbox"]["image"] == f"optiinfra/sandbox:{service_images.tag()}"


def test_overrides_of_a_private_platform_join_the_network_of_its_host(made: Environment) -> None:
    over = private.describe("mine-1", made, {"redis": 12345})
    added = compose.overrides(over)
    assert added["networks"] == {
        "environment": {"external": True, "name": f"{compose.project_name('boxes')}_environment"}
    }
    assert added["services"].keys() == programs(over.parts).keys()
    variables = added["services"]["orchestrator"]["environment"]
    assert "@postgresql.boxes:5432/optiinfra_mine_1" in variables["OPTIINFRA_POSTGRESQL_URL"]
    assert f"@{made.host_address}:12345/0" in variables["OPTIINFRA_REDIS_URL"], "through the proxy on this machine"
    assert "@127.0.0.1:12345/0" in over.urls()["redis"], "for tests, which must not reach other machines"
    assert variables["OPTIINFRA_ORCHESTRATOR_URL"] == "http://orchestrator.mine-1:8001"


def test_subnet_depends_on_the_name_and_the_host_has_its_first_address(made: Environment) -> None:
    other = environments.create("other", Settings("compose"), None, "")
    assert made.subnet != other.subnet
    assert made.subnet.subnet_of(environments.SUBNETS)
    assert made.subnet.num_addresses == 32
    assert made.host_address == str(made.subnet[1])
    assert environments.create("plain", Settings(), None, "").host_address == "127.0.0.1"


def described(service: str, **changed: Any) -> dict[str, Any]:
    state = {"Status": "running", "Pid": 7, "StartedAt": "2026-10-01T10:00:00.123456789Z", "ExitCode": 137}
    return {
        "Id": f"id-{service}",
        "RestartCount": 0,
        "State": state,
        "Config": {"Labels": {"com.docker.compose.service": service}},
    } | changed


def test_states_and_exits_are_those_of_the_containers(made: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    containers = [described("redis"), described("portal", RestartCount=2), described(compose.ONE_SHOT)]

    def answer(*arguments: str, **_: object) -> str:
        return "a\nb\nc\n" if arguments[0] == "ps" else json.dumps(containers)

    monkeypatch.setattr(compose, "docker", answer)
    project = compose.ComposeProject(made)
    states = project.states()
    assert project.is_running
    assert {name: (state.state, state.pid) for name, state in states.items()} == {
        "redis": ("RUNNING", 7),
        "portal": ("RUNNING", 7),
    }
    started = states["portal"].started_at
    assert [(one.program, one.how) for one in project.exits(started)] == [("portal", "exit status 137")] * 2
    assert project.exits(started.replace(minute=1)) == []


def test_environments_are_those_of_this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, mine = str(compose.FILE.parent), compose.project_name("boxes")
    containers = [
        f"{mine} ",
        f"optiinfra-e2e {folder}",
        "optiinfra-e2e /elsewhere",
        "optiinfra-boxes-0123456789 ",
        " ",
        "x /x",
    ]
    monkeypatch.setattr(compose, "docker", lambda kind, *_: "\n".join(containers) if kind == "ps" else "optiinfra-e2e")
    monkeypatch.setattr(shutil, "which", lambda name: name)
    assert compose.environments() == {"boxes", "e2e"}
    containers[1] = "optiinfra-e2e /elsewhere"
    assert compose.environments() == {"boxes"}


def test_environments_without_an_engine_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: str) -> str:
        raise docker.DockerError("no engine")

    monkeypatch.setattr(compose, "docker", fail)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    assert compose.environments() == set()
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert compose.environments() == set()


def test_docker_that_is_missing_or_fails_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(docker.DockerError, match="docker is not installed: `invoke verify-prerequisites"):
        docker.docker("version")
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\necho no such image >&2\nexit 1\n")
    program.chmod(0o700)
    with pytest.raises(docker.DockerError, match="`docker pull x` failed:\nno such image"):
        docker.docker("pull", "x")
