"""Finding processes by their variables, and ending them whatever they do about it."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from testbed import processes
from testbed.waiting import WaitTimeoutError, wait_until
from tests.helpers.processes import Sleeper

IGNORES_SIGTERM = """
import os, pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(os.environ["READY"]).touch()
time.sleep(600)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    monkeypatch.setenv("OPTIINFRA_TIMEOUT_FACTOR", "1")


def always(*found: psutil.Process) -> Callable[[], list[psutil.Process]]:
    return lambda: list(found)


def test_with_variable_finds_a_process_that_is_still_within_exec(
    sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = sleeper(OPTIINFRA_ENV_ID="mine-0123456789")
    environ, cmdline = psutil.Process.environ, psutil.Process.cmdline
    hidden = iter(range(3))  # the kernel shows nothing that many times

    def environ_during_exec(self: psutil.Process) -> dict[str, str]:
        return {} if self == process and next(hidden, None) is not None else environ(self)

    monkeypatch.setattr(psutil.Process, "environ", environ_during_exec)
    monkeypatch.setattr(psutil.Process, "cmdline", lambda self: [] if self == process else cmdline(self))
    found = [each for each, value in processes.with_variable("OPTIINFRA_ENV_ID") if value == "mine-0123456789"]
    assert found == [process]


def test_end_kills_processes_that_ignore_sigterm_or_are_suspended(sleeper: Sleeper, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    ignoring, suspended = sleeper(IGNORES_SIGTERM, READY=str(ready)), sleeper()
    wait_until(ready.exists, "SIGTERM to be ignored", 10)
    suspended.suspend()
    described = processes.end(always(ignoring, suspended))
    assert [words.split()[1] for words in described] == [str(ignoring.pid), str(suspended.pid)]
    assert not processes.is_alive(ignoring)
    assert not processes.is_alive(suspended)


@pytest.mark.parametrize("found", [True, False])
def test_end_includes_children_but_describes_only_the_parent(sleeper: Sleeper, found: bool) -> None:
    parent = sleeper(PARENT)
    (child,) = wait_until(parent.children, "the child", 10)
    described = [processes.describe(parent.pid)]
    assert processes.end(always(*([parent, child] if found else [parent]))) == described
    assert not processes.is_alive(child)


def test_end_includes_processes_that_are_found_later(sleeper: Sleeper) -> None:
    first, second = sleeper(), sleeper()
    seen = iter([[first], [second]])
    assert len(processes.end(lambda: next(seen, []))) == 2
    assert not processes.is_alive(second)


def test_end_names_a_process_that_does_not_end(sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch) -> None:
    process = sleeper()
    monkeypatch.setattr(processes, "END_SECONDS", 0.3)
    monkeypatch.setattr(psutil.Process, "send_signal", lambda *_: None)
    monkeypatch.setattr(psutil.Process, "kill", lambda *_: None)
    with pytest.raises(WaitTimeoutError, match=f"process {process.pid} "):
        processes.end(always(process))
