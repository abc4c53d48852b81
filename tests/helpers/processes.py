"""Inner pytest runs, idle processes for tests that find and stop processes, and a session that has ended."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from testbed import paths, sessions
from testbed.waiting import wait_until

Sleeper = Callable[..., psutil.Process]


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Inner pytest runs load few plugins: loading all that are installed would take most of their time."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p timeout -p xdist")
    return pytester


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
        found = psutil.Process(process.pid)
        # Popen returns during exec. Until exec has ended, the kernel shows neither arguments nor variables.
        wait_until(found.cmdline, "exec to end", 10, poll=0.001)
        wait_until(found.environ, "exec to end", 10, poll=0.001)
        return found

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def ended_session(tmp_path: Path) -> Path:
    """A session of this checkout (which the test has moved) that has ended, as after `kill -9`."""
    folder = paths.environments_dir() / "4711-ended.session"
    (folder).mkdir(parents=True)
    (folder / "lock").touch()
    assert not sessions.is_alive(folder)
    return folder
