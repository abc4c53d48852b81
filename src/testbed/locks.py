"""One start, stop or removal of an environment at a time: by a lock that ends with the process that holds it."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from testbed import paths, processes
from testbed.environment import SetupError
from testbed.waiting import WaitTimeoutError, wait_until

# A start may take its 120 seconds, and has then to stop what it started.
LOCK_SECONDS = 150.0


class BusyError(SetupError):
    """Somebody else is at work on the environment, and did not end in time; the message names the process."""


@contextlib.contextmanager
def locked(name: str, say: Callable[[str], None] = print, *, deadline: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the environment's lock; ``say`` hears whom we wait for. BusyError after ``deadline`` seconds (stretched)."""
    path = paths.lock_file(name)
    said = False

    def taken() -> TextIO | None:
        nonlocal said
        file = _taken(path)
        if file is None and deadline and not said:
            say(f"waiting for {holder(path)}, which is at work on environment {name!r}")
            said = True
        return file

    try:
        # Whoever removes the last environment removes the folder.
        file = wait_until(taken, f"the lock of {name!r}", deadline, transient=(FileNotFoundError,))
    except WaitTimeoutError as error:
        raise BusyError(
            f"environment {name!r} is being started, stopped or removed by {holder(path)}: try again when it has ended"
        ) from error
    assert file is not None
    with file:
        yield


def _taken(path: Path) -> TextIO | None:
    """The lock file, locked and naming this process; None while it is somebody else's."""
    path.parent.mkdir(exist_ok=True)
    file = path.open("a+")
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who held it before us may have removed it: then it locks out nobody.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            return file
    file.close()
    return None


def holder(path: Path) -> str:
    """The process that holds, or last held, a lock."""
    with contextlib.suppress(OSError, ValueError):
        return processes.in_words(int(path.read_text()))
    return "another process"
