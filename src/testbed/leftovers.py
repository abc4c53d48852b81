"""What dead sessions of this checkout left behind: found by whose it is, ended, removed, and told.

Never touched: what a living session owns, what a person started, this process, and those that started it.
"""

import contextlib
from collections.abc import Callable, Iterator

from testbed import environment as environments
from testbed import owners, paths, processes, startup, worktrees
from testbed.environment import SetupError
from testbed.locks import BusyError, locked

Say = Callable[[str], None]


def clear(say: Say) -> None:
    """End and remove all of it, and say what that was."""
    seen: set[str] = set()
    # Who is ended may have owned others.
    while new := {*_end_deserted(say), *_remove_orphans(say)} - seen:
        seen |= new
    for name in sorted(_names()):
        try:
            environments.read(name)
        except SetupError as error:
            say(f"left alone, for nobody can tell whose it is: {error}")
    worktrees.clear(say)


def _end_deserted(say: Say) -> list[str]:
    ended = processes.end(owners.deserted)
    for words in ended:
        say(f"ended {words}, whose session is dead")
    return ended


def _remove_orphans(say: Say) -> Iterator[str]:
    for name in sorted(_names()):
        # Who holds the lock lives: those whose session is dead were ended before.
        with contextlib.suppress(BusyError):
            if _desertion(name):
                with locked(name, say, deadline=0):
                    if why := _desertion(name):  # still, now that nobody else changes it
                        startup.remove(name, say)
                        say(f"removed environment {name!r}: {why}")
                        yield name


def _names() -> set[str]:
    """Every environment of which there is a folder, a lock, or a process."""
    folder = paths.environments_dir()
    found = {path.name.removeprefix(".").removesuffix(".lock") for path in folder.glob("*")}
    for _, mark in processes.marked("OPTIINFRA_ENV_ID"):
        name = mark.rpartition("-")[0]
        if mark == environments.env_id(name):
            found.add(name)
    return {name for name in found if paths.NAME.fullmatch(name)}


def _desertion(name: str) -> str | None:
    """Why nobody needs the environment any more, as far as that can be known; None when somebody may."""
    try:
        found = environments.read(name)
    except SetupError:
        return None
    if found is None:
        return "nothing describes it, so its start did not get far, or its folder was deleted"
    if found.owner is not None and not found.owner.alive:
        return f"process {found.owner.pid}, which started it for itself, is dead"
    return None
