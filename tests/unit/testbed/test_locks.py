"""One at a time: who waits, who is named, and what a removed lock is worth."""

import fcntl
import os
from pathlib import Path

import psutil
import pytest

from testbed import paths
from testbed.locks import BusyError, locked
from testbed.waiting import wait_until
from tests.unit.testbed.conftest import Sleeper

HOLD = "from testbed import locks, paths; paths.ROOT = __import__('pathlib').Path({root!r})\n"
HOLD += "with locks.locked('mine'): __import__('time').sleep(600)"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)


@pytest.fixture
def other(sleeper: Sleeper, tmp_path: Path) -> psutil.Process:
    """A process that holds the lock of `mine`."""
    process = sleeper(HOLD.format(root=str(tmp_path)))
    file = paths.lock_file("mine")
    wait_until(lambda: file.exists() and file.read_text() == str(process.pid), "the lock to be taken", 20)
    return process


def test_a_living_holder_is_named_after_the_deadline(other: psutil.Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIINFRA_TIMEOUT_FACTOR", "1")
    said: list[str] = []
    with pytest.raises(BusyError, match=rf"'mine' is being .* by process {other.pid} \("):  # noqa: SIM117
        with locked("mine", said.append, deadline=0.3):
            pass
    assert len(said) == 1
    assert f"waiting for process {other.pid} " in said[0]
    with locked("yours", deadline=0):
        pass


def test_the_lock_ends_with_its_holder(other: psutil.Process) -> None:
    other.kill()
    with locked("mine", deadline=10):
        assert paths.lock_file("mine").read_text() == str(os.getpid())


def test_who_waited_for_a_removed_lock_does_not_hold_it(monkeypatch: pytest.MonkeyPatch) -> None:
    path = paths.lock_file("mine")
    flock = fcntl.flock

    def late(file: int, how: int) -> None:
        flock(file, how)
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()  # as the one before us does as its last act

    monkeypatch.setattr(fcntl, "flock", late)
    with locked("mine", deadline=5), pytest.raises(BusyError):  # noqa: SIM117
        with locked("mine", deadline=0):
            pass
