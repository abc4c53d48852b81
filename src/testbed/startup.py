"""Starting and stopping an environment."""

import contextlib
import fcntl
import importlib.util
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path

import psutil

from testbed import environment as environments
from testbed import paths
from testbed.environment import Environment, Settings, SetupError
from testbed.health import Row, check
from testbed.parts import PARTS, Part, named
from testbed.supervision import Supervisor, new_socket, stop_strays, strays
from testbed.waiting import POLL_SECONDS, WaitTimeoutError, stretched, wait_until

# A part that dies ends the start at once; this is for one that hangs.
START_SECONDS = 120.0
LAST_LINES = 15

Say = Callable[[str], None]


class StartError(SetupError):
    """A part could not be started; the message names it and shows the end of its log."""


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """One start or stop of an environment at a time."""
    folder = paths.ROOT / ".testenv"
    folder.mkdir(exist_ok=True)
    with (folder / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def running(name: str) -> Environment | None:
    """The environment of this name if its supervisor lives, else None."""
    found = environments.load(name)
    return found if found is not None and Supervisor(found).pid is not None else None


def needed(name: str) -> Environment:
    """The environment of this name, running now; SetupError when it is not."""
    found = running(name)
    if found is None:
        raise SetupError(f"environment {name!r} is not running: `invoke start-test-env` starts it")
    return found


def start(name: str, settings: Settings, say: Say, *, healthy: Callable[[Row], None] | None = None) -> Environment:
    """Start every part at once; return when all are healthy.

    Starting an environment that runs is no error. Raises StartError as soon as a part ends or its deadline passes; what
    was started is stopped again, its logs stay.
    """
    state = paths.state_dir(name)
    with locked(name):
        found = running(name)
        if found is not None:
            say(f"environment {name!r} is running already")
            _wait_healthy(found, datetime.now(UTC), healthy)
            return found
        state.mkdir(parents=True, exist_ok=True)
        left = stop_strays(strays(environments.env_id(name)))
        if left:
            say(f"stopped what an earlier supervisor left behind: {', '.join(left)}")
        check_wheels()
        previous = environments.load(name)
        if previous is not None:
            _forget_socket(previous)
        created = environments.create(name, settings, previous, new_socket())
        since = datetime.now(UTC).replace(microsecond=0)
        try:
            check_ports(created)
            created.save()
            Supervisor(created).launch()
            _wait_healthy(created, since, healthy)
        except BaseException:
            _stop(created)
            raise
        return created


def check_wheels() -> None:
    """SetupError names every part whose package is missing, and how to get it."""
    missing = [part for part in PARTS if part.wheel and importlib.util.find_spec(part.wheel.module) is None]
    if missing:
        lines = [f"  {part.name}: {part.wheel.distribution}" for part in missing if part.wheel]
        extras = ",".join(sorted({part.wheel.extra for part in missing if part.wheel}))
        how = f"pip install -e '.[{extras}]' -c constraints.txt"
        raise SetupError("missing packages:\n" + "\n".join(lines) + f"\nget them with: {how}")


def check_ports(environment: Environment) -> None:
    """SetupError names every taken port with the process that holds it."""
    taken = [(part, environment.ports[part.name]) for part in PARTS if part.name in environment.ports]
    lines = [
        f"  {part.name}: port {port} is held by {holder(port)}; free it, or set {part.port_variable} to another"
        for part, port in taken
        if not environments.is_free(port)
    ]
    if lines:
        raise SetupError("ports are taken:\n" + "\n".join(lines))


def holder(port: int) -> str:
    """The process that listens on the port, in words."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS tells root only
        return "another process"
    for connection in connections:
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        if listens and connection.pid:
            with contextlib.suppress(psutil.Error):
                return f"process {connection.pid} ({' '.join(psutil.Process(connection.pid).cmdline())[:120]})"
    return "a process of another user"


def _wait_healthy(environment: Environment, since: datetime, healthy: Callable[[Row], None] | None) -> None:
    supervisor = Supervisor(environment)
    abandoned = threading.Event()
    seen: dict[str, Row] = {}

    def until_healthy(part: Part) -> Row:
        while True:
            row = check(environment, part, None)
            seen[part.name] = row
            if row.status == "healthy" or abandoned.wait(POLL_SECONDS):
                return row

    with ThreadPoolExecutor(max_workers=len(PARTS)) as pool:
        pending = {pool.submit(until_healthy, part) for part in PARTS}

        def step() -> list[str]:
            nonlocal pending
            supervisor.states()  # wakes its main loop
            for ended in supervisor.exits(since):
                log = last_lines(environment, ended.program)
                raise StartError(f"{ended.program} ended while starting ({ended.how})\n{log}")
            done, pending = wait(pending, timeout=0)
            for future in done:
                if healthy is not None:
                    healthy(future.result())
            return [row.name for row in seen.values() if row.status != "healthy"]

        try:
            wait_until(
                step, "all parts to be healthy", START_SECONDS, accept=lambda _: not pending, transient=(OSError,)
            )
        except WaitTimeoutError as error:
            late = [row for row in seen.values() if row.status != "healthy"]
            lines = "\n".join(
                f"{row.name}: {row.note}\n{last_lines(environment, named(row.name).program)}" for row in late
            )
            raise StartError(f"not healthy after {stretched(START_SECONDS):.0f} s:\n{lines}") from error
        finally:
            abandoned.set()


def last_lines(environment: Environment, program: str) -> str:
    """The end of a program's log, indented, with its path."""
    log = environment.state_dir / "logs" / f"{program}.log"
    lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:] if log.exists() else []
    shown = "\n".join(f"    {line}" for line in lines) or "    (it wrote nothing)"
    return f"  the end of {log}:\n{shown}"


def stop(name: str, say: Say) -> bool:
    """Stop every process of the environment; True when something ran. Data and logs stay."""
    with locked(name):
        found = environments.read(name)
        ran = found is not None and _stop(found)
        left = stop_strays(strays(environments.env_id(name)))
        if left:
            say(f"stopped what an earlier supervisor left behind: {', '.join(left)}")
        return ran or bool(left)


def _stop(environment: Environment) -> bool:
    supervisor = Supervisor(environment)
    ran = supervisor.pid is not None
    supervisor.stop()
    _forget_socket(environment)
    return ran


def _forget_socket(environment: Environment) -> None:
    shutil.rmtree(Path(environment.supervisor_socket).parent, ignore_errors=True)


def clean(name: str, say: Say) -> None:
    """Stop the environment and remove its folder, data outside of it included."""
    stop(name, say)
    state = paths.state_dir(name)
    outside = state / "postgresql"
    if outside.is_symlink():
        shutil.rmtree(outside.resolve(), ignore_errors=True)
    if state.exists():
        shutil.rmtree(state)
    (paths.ROOT / ".testenv" / f".{name}.lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # other environments are still there
        (paths.ROOT / ".testenv").rmdir()
