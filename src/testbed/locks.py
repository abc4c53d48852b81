"""Locks on files. The kernel releases them when the process that holds them ends, however it ends.

A lock is not inherited: Python opens files close-on-exec, so a child that outlives its parent does not keep the lock.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from testbed import paths, processes
from testbed.waiting import WaitTimeoutError, wait_until

# A start may take its 120 seconds, and then has to stop what it started.
LOCK_SECONDS = 150.0


class BusyError(WaitTimeoutError):
    """Another process starts, stops or removes the environment, and did not end in time; the message names it."""


def try_lock(path: Path, *, shared: bool = False) -> TextIO | None:
    """The file, created if missing and locked until it is closed; None while another process holds or removes it.

    Shared locks exclude only exclusive ones.
    """
    with contextlib.suppress(FileNotFoundError, BlockingIOError), contextlib.ExitStack() as stack:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(path.open("a+"))
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        # The previous holder may have removed the file after we opened it: then our lock has no effect.
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            stack.pop_all()
            return file
    return None


def is_held(path: Path) -> bool:
    """Whether a process holds the lock. Nobody holds the lock of a file that does not exist."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that check at once do not mistake each other
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


@contextlib.contextmanager
def locked(name: str, say: Callable[[str], None] = print, *, deadline: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold an environment's lock, so that one process at a time starts, stops or removes the environment.

    ``say`` is called with the lock holder if we have to wait. BusyError after ``deadline`` seconds (stretched).
    """
    path = paths.lock_file(name)
    announced = False

    def acquire() -> TextIO | None:
        nonlocal announced
        file = try_lock(path)
        if file is None and deadline and not announced:
            say(f"waiting for {_describe_holder(path)}, which is starting, stopping or removing environment {name!r}")
            announced = True
        return file

    try:
        file = wait_until(acquire, f"the lock of {name!r}", deadline)
    except WaitTimeoutError as error:
        raise BusyError(
            f"environment {name!r} is being started, stopped or removed by {_describe_holder(path)}: "
            "try again when it has ended"
        ) from error
    assert file is not None
    with file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _describe_holder(path: Path) -> str:
    """The process that holds, or last held, an environment's lock."""
    with contextlib.suppress(OSError, ValueError):
        return processes.describe(int(path.read_text()))
    return "another process"
