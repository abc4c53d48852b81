"""One engine by itself, as the environment would start it, for as long as tests need it.

It is embedded, or a throwaway container with `OPTIINFRA_BACKEND=compose`.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from testbed import environment as environments
from testbed import health, paths, startup
from testbed.environment import Environment, Settings, scrubbed
from testbed.locks import locked
from testbed.parts import find_part
from testbed.probes import probe_of
from testbed.waiting import stretched, wait_until

READY_SECONDS = 30.0

BACKEND = Settings.chosen(None, coverage=False, fleet_speed=None).backend
only_compose = pytest.mark.skipif(BACKEND != "compose", reason="not run: it needs OPTIINFRA_BACKEND=compose")
"""For tests of images and containers themselves."""


class Engine:
    """A running engine; ``environment`` holds its address and secrets."""

    def __init__(self, name: str, environment: Environment) -> None:
        self.part = find_part(name)
        self.environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.environment.ports[self.part.name]

    def secret(self, name: str) -> str:
        """One of the environment's secrets."""
        return self.environment.credentials[name]

    def start(self) -> None:
        """Start it and wait until its health probe succeeds."""
        state = self.environment.state_dir
        with (state / f"{self.part.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.part.module],
                cwd=paths.ROOT,
                env=scrubbed(os.environ) | self.environment.variables(self.part),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

        def probe() -> str:
            assert self._process is not None
            assert self._process.poll() is None, (state / f"{self.part.name}.log").read_text()[-3000:]
            return probe_of(self.part)(self.environment, self.part).version

        wait_until(probe, f"{self.part.name} to be ready", READY_SECONDS, transient=health.probe_errors())

    def kill(self) -> None:
        """`kill -9`, and wait until the processes that it started have noticed and ended."""
        assert self._process is not None
        started = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        _, alive = psutil.wait_procs(started, timeout=stretched(READY_SECONDS))
        assert alive == []

    def stop(self) -> None:
        """Ask it to end as the supervisor does."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.Signals[f"SIG{self.part.stop_signal}"])
            self._process.wait(timeout=20)


@contextmanager
def running(name: str, label: str = "") -> Iterator[Engine]:
    """An engine with data of its own, removed afterwards. Two of one name that run at once need different labels."""
    # Only the engine may be in a container: what uses it is on this machine, and needs addresses of this machine.
    environment = environments.create(f"contract-{label or name}-{os.getpid()}", Settings("embedded"), None, "")
    with locked(environment.name):
        environment.save()
    engine = _made(name, environment)
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()
        startup.clean(environment.name, print)


def _made(name: str, environment: Environment) -> Engine:
    if BACKEND == "embedded":
        return Engine(name, environment)
    from tests.contract.container import ContainerEngine  # it needs a Docker engine

    return ContainerEngine(name, environment)
