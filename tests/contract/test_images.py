"""The images of our services, and how the Compose file runs them."""

import json
from pathlib import Path
from typing import Any

import pytest

from testbed import compose, images, service_images
from testbed.docker import docker
from testbed.parts import PARTS
from testbed.waiting import stretched
from tests.contract.engine import only_compose

pytestmark = only_compose

TARGETS = (*service_images.SERVICES, *service_images.HELPERS)
OWN_PROGRAMS = {part.program for part in PARTS if part.kind not in ("store", "cloud")}
PROBE = Path(__file__).with_name("image_probe.py").read_text()


def probe(target: str) -> dict[str, Any]:
    """What a process in the image finds, see `image_probe.py`."""
    image = f"{service_images.PREFIX}{target}:{service_images.tag()}"
    run = ("run", "--rm", "--network", "none", "--entrypoint", "python", image, "-c", PROBE)
    found: dict[str, Any] = json.loads(docker(*run, seconds=stretched(60)))
    return found


@pytest.mark.parametrize("target", TARGETS)
def test_image_runs_as_an_account_that_can_change_and_build_nothing(target: str) -> None:
    found = probe(target)
    assert (found["uid"], found["gid"]) == (compose.IMAGE_ACCOUNT, compose.IMAGE_ACCOUNT)
    assert found["writable"] == []
    assert found["tools"] == []


@pytest.mark.parametrize("target", TARGETS)
def test_image_says_what_it_was_made_from(target: str) -> None:
    image = images.inspect(f"{service_images.PREFIX}{target}:{service_images.tag()}")
    assert image is not None
    assert image.labels["com.optiinfra.source"] == service_images.tag()
    assert image.labels["org.opencontainers.image.title"] == "OptiInfra"
    assert image.labels["org.opencontainers.image.revision"] not in ("", "unknown")


def test_containers_have_read_only_roots_limits_and_ports_of_this_machine_only(environment: dict[str, Any]) -> None:
    ids = compose.container_ids(compose.project_name(environment["name"]))
    containers = {
        each["Config"]["Labels"]["com.docker.compose.service"]: each for each in json.loads(docker("inspect", *ids))
    }
    assert containers.keys() == {part.program for part in PARTS} | {compose.ONE_SHOT}
    for name, container in containers.items():
        settings = container["HostConfig"]
        assert settings["Memory"] > 0, name
        bindings = [each["HostIp"] for ports in settings["PortBindings"].values() for each in ports]
        assert set(bindings) <= {"127.0.0.1"}, name
        if name in OWN_PROGRAMS | {compose.ONE_SHOT}:
            assert settings["ReadonlyRootfs"], name
            assert settings["CapDrop"] == ["ALL"], name
            assert settings["SecurityOpt"] == ["no-new-privileges:true"], name
            assert container["Config"]["User"].partition(":")[0] not in ("", "0", "root"), name
