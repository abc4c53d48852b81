"""Finding processes by their environment variables, and ending them."""

import contextlib
import shlex
import signal
from collections.abc import Callable, Iterator

import psutil

from testbed.waiting import WaitTimeoutError, wait_until

GRACE_SECONDS = 3.0
END_SECONDS = 30.0
EXEC_SECONDS = 1.0


def _this_and_ancestors() -> set[int]:
    this = psutil.Process()
    return {process.pid for process in (this, *this.parents())}


def with_variable(name: str) -> Iterator[tuple[psutil.Process, str]]:
    """Processes with this environment variable, and its value; neither this process nor its ancestors."""
    excluded = _this_and_ancestors()
    for process in psutil.process_iter():
        if process.pid in excluded:
            continue
        try:
            value = _variables(process).get(name)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue  # another user's, or ended
        if value:
            yield process, value


def _variables(process: psutil.Process) -> dict[str, str]:
    """The environment variables of a process. During `exec` the kernel shows them empty for a moment."""

    def shown() -> bool:
        return bool(process.environ() or process.cmdline() or not process.exe())  # kernel threads have none of these

    with contextlib.suppress(WaitTimeoutError):
        wait_until(shown, f"exec of process {process.pid} to end", EXEC_SECONDS, poll=0.001)
    return process.environ()


def is_alive(process: psutil.Process) -> bool:
    """Whether the process runs. One that ended does not, even if its parent has not waited for it yet."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def describe(pid: int) -> str:
    """A process as it is shown to a person: its number and the beginning of its command."""
    with contextlib.suppress(psutil.Error):
        words = filter(None, psutil.Process(pid).cmdline())  # a process that overwrites its arguments leaves empty ones
        return f"process {pid} ({shlex.join(words)[:100]})"
    return f"process {pid}"


def end(find: Callable[[], list[psutil.Process]]) -> list[str]:
    """End the processes that `find` returns, with all their descendants, until it returns none; describe them.

    Each is asked first, and killed if it has not ended within GRACE_SECONDS. Descendants are described only if `find`
    returned them and not their ancestor. WaitTimeoutError names those that cannot be ended.
    """
    ended: dict[psutil.Process, str] = {}
    family: set[psutil.Process] = set()

    def remaining() -> list[str]:
        found = [process for process in find() if is_alive(process)]
        if not found:  # but a descendant that was killed may not have ended yet
            return [describe(process.pid) for process in family if is_alive(process)]
        descendants = {child for process in found for child in _descendants(process)}
        ended.update({each: describe(each.pid) for each in found if each not in descendants and each not in ended})
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.send_signal(_stop_signal(process))
        family.update(descendants, found)
        for process in _alive_after_grace(family):
            with contextlib.suppress(psutil.Error):
                process.kill()
        return [describe(process.pid) for process in found]

    wait_until(remaining, "processes to end", END_SECONDS, accept=lambda left: not left)
    return list(ended.values())


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return process.children(recursive=True)
    return []


def _alive_after_grace(family: set[psutil.Process]) -> list[psutil.Process]:
    """Those that did not end within GRACE_SECONDS."""

    def alive() -> list[psutil.Process]:
        return [process for process in family if is_alive(process)]

    with contextlib.suppress(WaitTimeoutError):
        return wait_until(alive, "processes to end", GRACE_SECONDS, accept=lambda left: not left, poll=0.02)
    return alive()


def _stop_signal(process: psutil.Process) -> signal.Signals:
    """SIGTERM; for PostgreSQL SIGINT, because on SIGTERM it waits until its clients are gone."""
    return signal.SIGINT if process.name() == "postgres" else signal.SIGTERM
