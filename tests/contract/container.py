"""One engine in a throwaway container, configured as in the Compose file."""

from typing import Any

import yaml
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from testbed import compose, health, service_images
from testbed.parts import HOST
from testbed.probes import probe_of
from testbed.waiting import wait_until
from tests.contract.engine import READY_SECONDS, Engine

# It would remove what a killed test leaves, but is an image of a registry. `invoke clean` does that here.
testcontainers_config.ryuk_disabled = True


class ContainerEngine(Engine):
    """The engine of one of the Compose file's services; data survive a kill, and go with the container."""

    _container: DockerContainer | None = None

    def start(self) -> None:
        """Create its container, or start the one that was killed, and wait until its health probe succeeds."""
        if self._container is None:
            self._container = self._created().start()
        else:
            self._container.get_wrapped_container().start()
        container = self._container

        def probe() -> str:
            assert container.status != "exited", container.get_logs()
            return probe_of(self.part)(self.environment, self.part).version

        wait_until(probe, f"{self.part.name} to be ready", READY_SECONDS, transient=health.probe_errors())

    def kill(self) -> None:
        """`kill -9`, and wait until it has ended."""
        assert self._container is not None
        self._container.get_wrapped_container().kill()
        self._container.get_wrapped_container().wait()

    def stop(self) -> None:
        """Remove the container with its data."""
        if self._container is not None:
            self._container.stop()

    def _created(self) -> DockerContainer:
        service = _service(self.part.program)
        credentials = self.environment.credentials
        labels = {compose.LABEL: compose.project_name(self.environment.name)}
        made = DockerContainer(service_images.engine_image(self.part), labels=labels, init=True)
        made.with_envs(**service.get("environment", {}), **compose.engine_variables(self.part, credentials))
        # `with_bind_ports` would listen on every address of this machine.
        made.ports = {str(self.part.container_port): (HOST, self.port)}  # type: ignore[dict-item]
        if "command" in service:
            made.with_command([each.replace("$$", "$") for each in service["command"]])
        for volume in service.get("volumes", ()):
            source, target, *mode = volume.split(":")
            if source.startswith("."):  # not a named volume
                made.with_volume_mapping(str(compose.FILE.parent / source), target, *mode)
        for folder in service.get("tmpfs", ()):
            made.with_tmpfs_mount(folder)
        return made


def _service(name: str) -> dict[str, Any]:
    described: dict[str, Any] = yaml.safe_load(compose.FILE.read_text())["services"][name]
    return described
