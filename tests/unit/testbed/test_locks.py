"""Locks: waiting for the holder, its end, and lock files that are removed."""

import fcntl
import os
from pathlib import Path

import psutil
import pytest

from testbed import locks, paths
from testbed.locks import BusyError, locked
from testbed.waiting import wait_until
from tests.helpers.processes import Sleeper

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
    wait_until(lambda: file.exists() and file.read_text() == str(process.pid), "the lock to be held", 20)
    return process


def test_locked_names_the_holder_after_the_deadline(other: psutil.Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIINFRA_TIMEOUT_FACTOR", "1")
    said: list[str] = []
    with pytest.raises(BusyError, match=rf"'mine' is being .* by process {other.pid} \("):  # noqa: SIM117
        with locked("mine", said.append, deadline=0.3):
            pass
    assert len(said) == 1
    assert f"waiting for process {other.pid} " in said[0]
    with locked("yours", deadline=0):
        pass


def test_locked_succeeds_after_the_holder_was_killed(other: psutil.Process) -> None:
    other.kill()
    with locked("mine", deadline=10):
        assert paths.lock_file("mine").read_text() == str(os.getpid())


def test_locked_retries_when_the_lock_file_was_removed_before_it_was_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    path = paths.lock_file("mine")
    flock = fcntl.flock

    def flock_and_remove(file: int, how: int) -> None:
        flock(file, how)
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()  # as the previous holder does before it releases the lock

    monkeypatch.setattr(fcntl, "flock", flock_and_remove)
    with locked("mine", deadline=5), pytest.raises(BusyError):  # noqa: SIM117
        with locked("mine", deadline=0):
            pass


def test_is_held_only_while_a_process_holds_the_lock(other: psutil.Process) -> None:
    path = paths.lock_file("mine")
    assert locks.is_held(path)
    other.kill()
    wait_until(lambda: not locks.is_held(path), "the lock to be released", 10)
    path.unlink()
    assert not locks.is_held(path)
    assert not path.exists(), "checking creates nothing"


def test_try_lock_excludes_others_until_the_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lock"
    file = locks.try_lock(path)
    assert file is not None
    assert locks.try_lock(path) is None
    file.close()
    again = locks.try_lock(path)
    assert again is not None
    again.close()
