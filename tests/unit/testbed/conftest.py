"""Idle processes for tests that find and stop processes."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import psutil
import pytest

Sleeper = Callable[..., psutil.Process]


@pytest.fixture
def sleeper() -> Iterator[Sleeper]:
    """Starts a process with variables besides ours, by default one that only sleeps; ended with the test."""
    started = []

    def start(
        code: str = "import time; time.sleep(600)", arguments: Sequence[str] = (), **variables: str
    ) -> psutil.Process:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        started.append(process)
        return psutil.Process(process.pid)

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def dead(sleeper: Sleeper) -> int:
    """The number of a process that was killed, and that its parent has not asked after yet."""
    process = sleeper()
    process.kill()
    return process.pid
