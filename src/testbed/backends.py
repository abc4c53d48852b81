"""Where an environment's processes run: under a supervisor on this machine, or in containers."""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from testbed.compose import ComposeProject
from testbed.environment import Environment
from testbed.supervision import Exit, ProcessState, Supervisor


class Backend(Protocol):
    """The processes of one environment, running or not."""

    @property
    def is_running(self) -> bool:
        """Whether its processes are looked after."""

    def launch(self) -> None:
        """Start all parts concurrently, without waiting until they are healthy."""

    def states(self) -> Mapping[str, ProcessState]:
        """Every program's state, by name; empty when it is not running."""

    def exits(self, since: datetime) -> list[Exit]:
        """Unexpected exits since then."""

    def kill(self, program: str) -> None:
        """`kill -9` of a program's process, which is then restarted."""

    def save_logs(self) -> None:
        """Bring the files in the environment's log folder up to date."""

    def stop(self) -> None:
        """Stop all parts. Data and logs stay."""


def backend_of(environment: Environment) -> Backend:
    """The backend that runs the environment."""
    return ComposeProject(environment) if environment.in_containers else Supervisor(environment)
