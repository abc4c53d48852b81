"""What is removed of environments in containers, described or not."""

import os
from collections.abc import Iterator

import pytest

from testbed import compose, paths, service_images, startup
from testbed.docker import docker
from tests.contract.engine import only_compose

pytestmark = only_compose


@pytest.fixture
def leftovers() -> Iterator[str]:
    """The name of an environment with a container, a network and a volume, and without a folder, as after `rm -r`."""
    name = f"killed-{os.getpid()}"
    project = compose.project_name(name)
    label = f"{compose.LABEL}={project}"
    docker("volume", "create", "--label", label, project)
    docker("network", "create", "--label", label, project)
    image = f"{service_images.PREFIX}portal:{service_images.tag()}"
    docker("create", "--label", label, "--network", project, "--volume", f"{project}:/data", image)
    yield name
    compose.remove(name)


def test_clean_of_an_environment_without_a_folder_removes_its_containers(leftovers: str) -> None:
    assert leftovers in compose.environments()
    assert not paths.state_dir(leftovers).exists()
    startup.clean(leftovers, print)
    assert leftovers not in compose.environments()
    assert compose.project_name(leftovers) not in docker("network", "ls", "--format", "{{.Name}}").split()


def test_network_with_containers_of_another_project_is_removed(leftovers: str) -> None:
    image = f"{service_images.PREFIX}portal:{service_images.tag()}"
    other = docker("create", "--network", compose.project_name(leftovers), image).strip()
    try:
        compose.remove(leftovers)
        assert leftovers not in compose.environments()
    finally:
        docker("rm", "--force", other)
