"""Remove orphaned processes, environments and worktrees: those of sessions that have ended.

Never touched: what a session that is alive has, what a person started, this process, and its ancestors.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

import psutil

from testbed import compose, paths, processes, sessions, startup, worktrees
from testbed import environment as environments
from testbed.environment import SetupError
from testbed.locks import BusyError, locked

Say = Callable[[str], None]


def remove_all(say: Say) -> None:
    """End and remove all that is orphaned in this checkout, and say what that was."""
    # Processes first: they could start more, and some hold sessions of their own.
    for description in processes.end(_orphaned_processes):
        say(f"terminated orphaned {description}")
    for name in sorted(_environment_names()):
        _remove_environment(name, say)
    worktrees.remove_orphaned(say)


def _orphaned_processes() -> list[psutil.Process]:
    """What ended sessions of this checkout still run, such as pytest and the environment's invoke tasks."""
    found = []
    for process, value in processes.with_variable(sessions.VARIABLE):
        session = Path(value)
        if sessions.is_of_this_checkout(session) and not sessions.is_alive(session):
            found.append(process)
    return found


def _remove_environment(name: str, say: Say) -> None:
    try:
        if _reason(name) is None:
            return
        with contextlib.suppress(BusyError), locked(name, say, deadline=0):
            if reason := _reason(name):  # still, now that no other process can change it
                startup.remove(name, say)
                say(f"removed orphaned environment {name!r}: {reason}")
    except SetupError as error:
        say(f"environment {name!r} was left alone, because its description does not say whose it is: {error}")


def _environment_names() -> set[str]:
    """Every environment that has a folder, a lock file, a process, a container or a volume."""
    found = {path.name.removeprefix(".").removesuffix(".lock") for path in paths.environments_dir().glob("*")}
    for _, env_id in processes.with_variable("OPTIINFRA_ENV_ID"):
        name = env_id.rpartition("-")[0]
        if env_id == environments.env_id(name):
            found.add(name)
    return {name for name in found | compose.environments() if paths.NAME.fullmatch(name)}


def _reason(name: str) -> str | None:
    """Why the environment is orphaned; None when it is not. SetupError when its description cannot be read."""
    found = environments.read(name)
    if found is None:  # while it is being started, its lock is held
        return "it is not described, so its start was interrupted or its folder was deleted"
    if found.session is not None and not sessions.is_alive(found.session):
        return f"the {sessions.describe(found.session)} has ended"
    return None
