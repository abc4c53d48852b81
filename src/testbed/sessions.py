"""Sessions: a run of nox, pytest, the mutants or a bench. Each holds the lock of a file for its whole life.

The kernel releases the lock however the session ends, so a session is alive exactly as long as its lock is held.
Processes that a session starts carry its folder in ``OPTIINFRA_SESSION``, and its environments and worktrees refer to
it. They are orphaned once the session is no longer alive (``testbed.orphans``). What a person starts carries no session
and is never orphaned.

The noxfile, which cannot import this module, makes folder and lock in the same way.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from testbed import paths
from testbed.locks import is_held, try_lock
from testbed.waiting import wait_until

VARIABLE = "OPTIINFRA_SESSION"
SUFFIX = ".session"
LOCK_SECONDS = 10.0


@contextlib.contextmanager
def hold() -> Iterator[Path]:
    """Hold a new session during the block and hand it down to children; yield its folder.

    Inside a session that was handed down to this process, use that one. ValueError when it has ended.
    """
    if given := current():
        yield given
        return
    folder = paths.environments_dir() / f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
    lock = wait_until(lambda: try_lock(lock_file(folder)), f"the lock of {folder}", LOCK_SECONDS)
    assert lock is not None
    with lock:
        os.environ[VARIABLE] = str(folder)
        try:
            yield folder
        finally:
            os.environ.pop(VARIABLE, None)
            remove(folder)


def current() -> Path | None:
    """The folder of the session that this process belongs to, if any; ValueError when that session has ended."""
    given = os.environ.get(VARIABLE)
    if not given:
        return None
    if not is_alive(Path(given)):
        raise ValueError(f"{VARIABLE}={given}, but that session has ended")
    return Path(given)


def is_alive(folder: Path) -> bool:
    """Whether a process holds the session."""
    return is_held(lock_file(folder))


def describe(folder: Path) -> str:
    """The session as it is shown to a person."""
    return f"session of process {folder.name.partition('-')[0]}"


def all_folders() -> set[Path]:
    """The folders of all sessions of this checkout, alive or not."""
    return set(paths.environments_dir().glob(f"*{SUFFIX}"))


def is_of_this_checkout(folder: Path) -> bool:
    """Whether the session was begun in this checkout, which is then responsible for what it leaves."""
    return folder.parent == paths.environments_dir()


def remove(folder: Path) -> None:
    """Remove a session's folder, and `.testenv` if it was the last thing in there."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        paths.environments_dir().rmdir()


def lock_file(folder: Path) -> Path:
    """The file that is locked as long as the session is alive."""
    return folder / "lock"
