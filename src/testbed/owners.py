"""Whose an environment, or a process, is: the session's that started it for itself, which may be dead by now.

A nox session and a run of pytest name themselves to all that they start, by ``OPTIINFRA_OWNER=PID:CHECKOUT``. What a
person starts has no owner, and is left alone until somebody cleans it by its name.
"""

import os
from dataclasses import dataclass

import psutil

from testbed import paths, processes

VARIABLE = "OPTIINFRA_OWNER"
SAME_SECONDS = 2.0  # the machine's start is known in whole seconds


@dataclass(frozen=True)
class Owner:
    """A process. ``started`` is in seconds since the machine's start, which setting the clock does not move."""

    pid: int
    started: float

    @classmethod
    def of(cls, process: psutil.Process) -> "Owner":
        """The process, as it can be written down; psutil.NoSuchProcess when it has ended."""
        return cls(process.pid, round(process.create_time() - psutil.boot_time(), 2))

    @property
    def alive(self) -> bool:
        """Whether this very process runs, and not another that was given its number since."""
        try:
            process = psutil.Process(self.pid)
            return processes.lives(process) and abs(Owner.of(process).started - self.started) <= SAME_SECONDS
        except psutil.NoSuchProcess:
            return False


def mark(pid: int) -> str:
    """The variable's value for all that a session, by its process id, starts."""
    return f"{pid}:{paths.ROOT}"


def given() -> Owner | None:
    """The session that this process works for, if any. ValueError when it has ended since."""
    text = os.environ.get(VARIABLE, "")
    if not text:
        return None
    pid = text.partition(":")[0]
    for process in processes.own_line():
        if str(process.pid) == pid:
            return Owner.of(process)
    raise ValueError(
        f"{VARIABLE}={text}, but no such process started this one: the session that it works for has ended"
    )


def deserted() -> list[psutil.Process]:
    """What still works for sessions of this checkout that are dead: pytest and its workers, verbs under way."""
    found = []
    for process, value in processes.marked(VARIABLE):
        pid, _, checkout = value.partition(":")
        if pid.isdigit() and checkout == str(paths.ROOT) and not _older(int(pid), process):
            found.append(process)
    return found


def _older(pid: int, process: psutil.Process) -> bool:
    """Whether a process of this number lives that could have started the other: one that got it later could not."""
    try:
        owner = psutil.Process(pid)
        return processes.lives(owner) and owner.create_time() <= process.create_time()
    except psutil.NoSuchProcess:
        return not process.is_running()
