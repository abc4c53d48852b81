"""Docker Compose runs the parts in containers: `compose/docker-compose.e2e.yml`, and a second file with what differs.

The second file, `.testenv/NAME/compose.json`, holds secrets: it is private. A container that exits is restarted by the
engine. Containers and volumes are found by Compose's own labels, also when no file describes them any more.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testbed import paths, service_images
from testbed.docker import DockerError, docker
from testbed.engines.settings import write_private
from testbed.environment import DEFAULT_NAME, Environment, tuned
from testbed.parts import Part, programs
from testbed.supervision import Exit, ProcessState

FILE = paths.ROOT / "compose" / "docker-compose.e2e.yml"
IMAGE_ACCOUNT = 10001
"""User and group of the images."""
STOP_SECONDS = 10
ONE_SHOT = "migrations"
"""The service that ends once its work is done."""
PROJECT_PREFIX = "optiinfra-"
LABEL, FOLDER_LABEL = "com.docker.compose.project", "com.docker.compose.project.working_dir"


@dataclass(frozen=True)
class Container:
    """A container as the engine describes it."""

    id: str
    service: str
    state: str
    pid: int
    restarts: int
    started_at: datetime
    exit_code: int


class ComposeProject:
    """The containers, network and volumes of one environment, running or not."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._file = environment.state_dir / "compose.json"

    @property
    def name(self) -> str:
        """The project's name: that in `compose/.env` for the default environment."""
        return project_name(self._environment.name)

    @property
    def is_running(self) -> bool:
        """Whether it has containers."""
        return bool(container_ids(self.name))

    def launch(self) -> None:
        """Create and start all containers. Raises DockerError."""
        environment, added = self._environment, overrides(self._environment)
        shared = (environment.state_dir / "runtime", environment.runtime_status.parent, coverage_folder(environment))
        for folder in shared:
            folder.mkdir(parents=True, exist_ok=True)
            os.chown(folder, *account())
        write_private(self._file, json.dumps(added, indent=2))
        # The dependencies of a private platform are its host's.
        alone = ["--no-deps"] if environment.over else []
        self._compose("up", "--detach", "--no-build", *alone, *added["services"], seconds=180)

    def states(self) -> Mapping[str, ProcessState]:
        """Every program's state, by name; empty when it is not running."""
        return {
            each.service: ProcessState(each.service, each.state.upper(), each.pid, each.started_at)
            for each in self._containers()
        }

    def exits(self, since: datetime) -> list[Exit]:
        """The exits of containers that were restarted since then: as many as the engine has counted for each."""
        return [
            Exit(each.service, each.started_at, f"exit status {each.exit_code}")
            for each in self._containers()
            if each.started_at >= since
            for _ in range(each.restarts)
        ]

    def kill(self, program: str) -> None:
        """`kill -9` of the process, from within the container: after `docker kill` the engine would not restart it."""
        (found,) = (each for each in self._containers() if each.service == program)
        docker("exec", found.id, "sh", "-c", "kill -9 -1")

    def save_logs(self) -> None:
        """Write each container's log to the environment's log folder."""
        folder = self._environment.state_dir / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        containers = self._containers()

        def save(container: Container) -> None:
            write_private(folder / f"{container.service}.log", docker("logs", container.id, errors_too=True))

        with ThreadPoolExecutor(max(1, len(containers))) as pool:
            list(pool.map(save, containers))

    def stop(self) -> None:
        """Remove its containers and its network; its volumes and logs stay."""
        self.save_logs()
        docker("compose", "--project-name", self.name, "down", "--timeout", str(STOP_SECONDS), seconds=120)

    def _containers(self) -> list[Container]:
        ids = container_ids(self.name)
        found = json.loads(docker("inspect", *ids)) if ids else []
        return [each for each in map(_container, found) if each.service != ONE_SHOT]

    def _compose(self, *arguments: str, seconds: float) -> str:
        files = ["--file", str(FILE), "--file", str(self._file)]
        ports = {
            part.port_variable: str(self._environment.ports[part.name])
            for part in self._environment.parts
            if part.port_variable
        }
        return docker("compose", "--project-name", self.name, *files, *arguments, variables=ports, seconds=seconds)


def project_name(name: str) -> str:
    """The Compose project of an environment."""
    return f"{PROJECT_PREFIX}{name}" if name == DEFAULT_NAME else f"{PROJECT_PREFIX}{name}-{paths.digest(name)}"


def container_ids(project: str) -> list[str]:
    """The containers of a project, running or not."""
    return docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={LABEL}={project}").split()


def environments() -> set[str]:
    """Names of this checkout's environments that have containers or volumes, described or not.

    Empty where no engine answers.
    """
    if shutil.which("docker") is None:
        return set()
    containers = ("ps", "--all", "--format", f'{{{{.Label "{LABEL}"}}}} {{{{.Label "{FOLDER_LABEL}"}}}}')
    volumes = ("volume", "ls", "--format", f'{{{{.Label "{LABEL}"}}}}')
    try:
        listed = [line.partition(" ") for query in (containers, volumes) for line in docker(*query).splitlines()]
    except DockerError:
        return set()
    return {name for project, _, folder in listed if (name := _environment_of(project, folder)) is not None}


def _environment_of(project: str, folder: str) -> str | None:
    """The environment of a project, None if that is another checkout's or no environment."""
    name = project.removeprefix(PROJECT_PREFIX)
    if name == DEFAULT_NAME:  # the only name without a digest of its checkout
        return name if folder == str(FILE.parent) else None
    name = name.rpartition("-")[0]
    return name if project == project_name(name) else None


def remove(name: str) -> None:
    """Remove the containers, network and volumes of an environment."""
    chosen = ("--filter", f"label={LABEL}={project_name(name)}")
    if containers := container_ids(project_name(name)):
        docker("rm", "--force", "--volumes", *containers)
    for network in docker("network", "ls", "--quiet", *chosen).split():
        (described,) = json.loads(docker("network", "inspect", network))
        for container in described["Containers"]:  # of private platforms, which lose their host
            docker("network", "disconnect", "--force", network, container)
        docker("network", "rm", network)
    if volumes := docker("volume", "ls", "--quiet", *chosen).split():
        docker("volume", "rm", *volumes)


def overrides(environment: Environment) -> dict[str, Any]:
    """What the environment adds to the Compose file: images, variables, names, folders and the network."""
    own = programs(environment.parts)
    services = {name: _service(environment, part) for name, part in own.items()}
    if environment.over is None:
        services[ONE_SHOT] = _one_shot(services["orchestrator"])
        network: dict[str, Any] = {"ipam": {"config": [{"subnet": str(environment.subnet)}]}}
    else:
        network = {"external": True, "name": f"{project_name(environment.over)}_environment"}
    return {"services": services, "networks": {"environment": network}}


def _service(environment: Environment, part: Part) -> dict[str, Any]:
    """What differs for one service. Folders have the same path in the container, so that paths need no translation."""
    made: dict[str, Any] = {
        "image": service_images.image_of(environment, part),
        "networks": {"environment": {"aliases": [f"{part.program}.{environment.name}"]}},
    }
    if part.kind in ("store", "cloud"):
        return made | {"environment": engine_variables(part, environment.credentials)}
    variables = {**tuned(os.environ), **environment.variables(part), "TZ": "UTC"}
    folders = _folders(environment, part)
    if environment.settings.coverage and part.is_platform:
        made["command"] = ["-m", part.module]
        variables["COVERAGE_FILE"] = str(coverage_folder(environment) / ".coverage")
        folders[coverage_folder(environment)] = "rw"
    uid, gid = account()
    return made | {
        "environment": variables,
        "user": f"{uid}:{gid}",
        "volumes": [f"{folder}:{folder}:{mode}" for folder, mode in folders.items()],
    }


def _one_shot(orchestrator: Mapping[str, Any]) -> dict[str, Any]:
    """The migrations: the orchestrator's image and account, without its port and name."""
    return {key: orchestrator[key] for key in ("environment", "image", "user", "volumes")}


def _folders(environment: Environment, part: Part) -> dict[Path, str]:
    """The folders of this machine that a service sees, with `ro` or `rw`."""
    if part.kind != "runtime":
        return {}
    return {
        environment.state_dir / "runtime": "ro",
        environment.runtime_status.parent: "rw",
        paths.ROOT / "fixtures" / "golden_prompts": "ro",
    }


def engine_variables(part: Part, credentials: Mapping[str, str]) -> dict[str, str]:
    """The variables by which the official image of a store or cloud takes its accounts."""
    return _ENGINE_VARIABLES.get(part.name, _none)(credentials)


def _none(_credentials: Mapping[str, str]) -> dict[str, str]:
    return {}


# As the official images read them.
_ENGINE_VARIABLES: Mapping[str, Callable[[Mapping[str, str]], dict[str, str]]] = {
    "postgresql": lambda secret: {
        "POSTGRES_USER": "postgres",  # the platform's role is created by compose/postgresql/role.sh
        "POSTGRES_DB": "optiinfra",
        "POSTGRES_PASSWORD": secret["postgresql_password"],
    },
    "clickhouse": lambda secret: {
        "CLICKHOUSE_USER": "optiinfra",
        "CLICKHOUSE_PASSWORD": secret["clickhouse_password"],
        "CLICKHOUSE_READER_USER": "optiinfra_reader",
        "CLICKHOUSE_READER_PASSWORD": secret["clickhouse_reader_password"],
        "CLICKHOUSE_DEFAULT_ACCESS_MANAGEMENT": "0",
    },
    "redis": lambda secret: {"REDIS_PASSWORD": secret["redis_password"]},
    "qdrant": lambda secret: {
        "QDRANT__SERVICE__API_KEY": secret["qdrant_api_key"],
        "QDRANT__SERVICE__READ_ONLY_API_KEY": secret["qdrant_read_only_api_key"],
    },
}


def account() -> tuple[int, int]:
    """User and group of the platform's containers: the caller's, or the images' own if root calls."""
    return (IMAGE_ACCOUNT, IMAGE_ACCOUNT) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def coverage_folder(environment: Environment) -> Path:
    """Where services write coverage data; those of a private platform count for its host."""
    return paths.state_dir(environment.over or environment.name) / "coverage"


def _container(described: Mapping[str, Any]) -> Container:
    state = described["State"]
    return Container(
        id=described["Id"],
        service=described["Config"]["Labels"]["com.docker.compose.service"],
        state=state["Status"],
        pid=state["Pid"],
        restarts=described["RestartCount"],
        started_at=datetime.fromisoformat(state["StartedAt"][:19]).replace(tzinfo=UTC),
        exit_code=state["ExitCode"],
    )
