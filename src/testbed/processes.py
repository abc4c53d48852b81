"""Processes by the marks in their environment variables, and ending them."""

import contextlib
import shlex
import signal
from collections.abc import Callable, Iterator

import psutil

from testbed.waiting import WaitTimeoutError, wait_until

GRACE_SECONDS = 3.0
END_SECONDS = 30.0


def own_line() -> list[psutil.Process]:
    """This process, its parent, and so on."""
    this = psutil.Process()
    return [this, *this.parents()]


def marked(variable: str) -> Iterator[tuple[psutil.Process, str]]:
    """Processes that were started with the variable, and its value; neither this one nor those that started it."""
    own = {process.pid for process in own_line()}
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        try:
            value = process.environ().get(variable)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue  # another user's, or gone
        if value:
            yield process, value


def lives(process: psutil.Process) -> bool:
    """Whether it runs: one that ended and was not waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def in_words(pid: int) -> str:
    """A process as it is shown to a person: its number and the beginning of its command."""
    with contextlib.suppress(psutil.Error):
        words = filter(None, psutil.Process(pid).cmdline())  # who writes over them leaves empty ones
        return f"process {pid} ({shlex.join(words)[:100]})"
    return f"process {pid}"


def end(find: Callable[[], list[psutil.Process]]) -> list[str]:
    """End what `find` finds, with all that it started, until it finds no more; what that was, in words.

    Each is asked first, and killed where that does not help within GRACE_SECONDS. WaitTimeoutError names what cannot be
    ended.
    """
    told: dict[psutil.Process, str] = {}

    def left() -> list[str]:
        found = [process for process in find() if lives(process)]
        if not found:
            return []
        children = {child for process in found for child in _descendants(process)}
        told.update({each: in_words(each.pid) for each in found if each not in children and each not in told})
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.send_signal(_request(process))
        for process in _outlasting(children.union(found)):
            with contextlib.suppress(psutil.Error):
                process.kill()
        return [in_words(process.pid) for process in found]

    wait_until(left, "processes to end", END_SECONDS, accept=lambda words: not words)
    return list(told.values())


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return process.children(recursive=True)
    return []


def _outlasting(family: set[psutil.Process]) -> list[psutil.Process]:
    """Those that did not end within GRACE_SECONDS."""

    def living() -> list[psutil.Process]:
        return [process for process in family if lives(process)]

    with contextlib.suppress(WaitTimeoutError):
        return wait_until(living, "processes to end", GRACE_SECONDS, accept=lambda left: not left, poll=0.02)
    return living()


def _request(process: psutil.Process) -> signal.Signals:
    """PostgreSQL takes SIGTERM for "once your clients are gone"."""
    return signal.SIGINT if process.name() == "postgres" else signal.SIGTERM
