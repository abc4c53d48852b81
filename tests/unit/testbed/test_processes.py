"""Ending processes, whatever they do about it."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from testbed import processes
from testbed.waiting import WaitTimeoutError, wait_until
from tests.unit.testbed.conftest import Sleeper

DEAF = """
import os, pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(os.environ["READY"]).touch()
time.sleep(600)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    monkeypatch.setenv("OPTIINFRA_TIMEOUT_FACTOR", "1")


def always(*found: psutil.Process) -> Callable[[], list[psutil.Process]]:
    return lambda: list(found)


def test_who_is_deaf_or_stopped_is_killed(sleeper: Sleeper, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    deaf, stopped = sleeper(DEAF, READY=str(ready)), sleeper()
    wait_until(ready.exists, "SIGTERM to be ignored", 10)
    stopped.suspend()
    told = processes.end(always(deaf, stopped))
    assert [words.split()[1] for words in told] == [str(deaf.pid), str(stopped.pid)]
    assert not processes.lives(deaf)
    assert not processes.lives(stopped)


@pytest.mark.parametrize("found", [True, False])
def test_what_somebody_started_ends_with_him_and_is_not_told(sleeper: Sleeper, found: bool) -> None:
    parent = sleeper(PARENT)
    (child,) = wait_until(parent.children, "the child", 10)
    told = [processes.in_words(parent.pid)]
    assert processes.end(always(*([parent, child] if found else [parent]))) == told
    assert not processes.lives(child)


def test_who_comes_up_meanwhile_is_ended_too(sleeper: Sleeper) -> None:
    first, second = sleeper(), sleeper()
    seen = iter([[first], [second]])
    assert len(processes.end(lambda: next(seen, []))) == 2
    assert not processes.lives(second)


def test_what_cannot_be_ended_is_named(sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch) -> None:
    process = sleeper()
    monkeypatch.setattr(processes, "END_SECONDS", 0.3)
    monkeypatch.setattr(psutil.Process, "send_signal", lambda *_: None)
    monkeypatch.setattr(psutil.Process, "kill", lambda *_: None)
    with pytest.raises(WaitTimeoutError, match=f"process {process.pid} "):
        processes.end(always(process))
