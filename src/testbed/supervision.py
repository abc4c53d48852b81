"""Supervisor runs the parts: its configuration, its remote interface, and the unexpected exits in its log.

Its main loop sleeps for up to a second unless it is called, so polling it makes starts and stops prompt. ``kill -9`` of
it orphans its children, which are found by their ``OPTIINFRA_ENV_ID``.
"""

import contextlib
import http.client
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import xmlrpc.client
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from testbed import environment as environments
from testbed import paths, processes
from testbed.engines.settings import private_folder, write_private
from testbed.environment import Environment, scrubbed
from testbed.parts import Part, programs
from testbed.waiting import WaitTimeoutError, stretched, wait_until

LOG_BYTES = 20_000_000
LOG_BACKUPS = 2
STOP_SECONDS = 10
# Supervisor never gives up: a start reports a part that exits, health-check one that keeps exiting.
START_RETRIES = 10_000
ANSWER_SECONDS = 10.0
# The errors of calls to a supervisor that is ending, hangs, or has lost its socket.
CALL_ERRORS = (OSError, http.client.HTTPException, xmlrpc.client.Error, psutil.Error, WaitTimeoutError)
EXIT_LINE = re.compile(r"^(?P<at>\S+ \S+),\d+ \w+ exited: (?P<program>\S+) \((?P<how>.*)\)$")


@dataclass(frozen=True)
class Exit:
    """A process that exited unexpectedly."""

    program: str
    at: datetime
    how: str


@dataclass(frozen=True)
class ProcessState:
    """What the supervisor says about a program."""

    name: str
    state: str
    pid: int
    started_at: datetime


def new_socket(name: str) -> str:
    """A path for the remote interface, in a private folder with a short name: socket paths are limited to 100 bytes."""
    return str(private_folder("run", environments.env_id(name)) / "rpc.sock")


def command(part: Part, *, coverage: bool) -> list[str]:
    """How the part's process is started."""
    if coverage and part.is_platform:
        return [sys.executable, "-m", "coverage", "run", "-m", part.module]
    return [sys.executable, "-m", part.module]


def configuration(environment: Environment) -> str:
    """supervisord.conf. It holds secrets: keep it private.

    The supervisor's umask makes logs private; it does not apply to what the programs write.
    """
    state = environment.state_dir
    user = "user=root\n" if os.geteuid() == 0 else ""
    head = f"""\
[supervisord]
logfile={_escaped(state / "logs" / "supervisord.log")}
logfile_maxbytes={LOG_BYTES}
logfile_backups={LOG_BACKUPS}
pidfile={_escaped(state / "supervisord.pid")}
umask=077
{user}
[unix_http_server]
file={_escaped(environment.supervisor_socket)}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""
    return head + "".join(_program(environment, part) for part in programs(environment.parts).values())


def _program(environment: Environment, part: Part) -> str:
    variables = environment.variables(part)
    if environment.settings.coverage and part.is_platform:
        folder = paths.state_dir(environment.over or environment.name) / "coverage"
        variables["COVERAGE_FILE"] = str(folder / ".coverage")
        variables["COVERAGE_RCFILE"] = str(paths.ROOT / ".coveragerc")
    group = str(part.stop_group).lower()
    words = " ".join(shlex.quote(word) for word in command(part, coverage=environment.settings.coverage))
    return f"""
[program:{part.program}]
command={_escaped(words)}
directory={_escaped(paths.ROOT)}
environment={",".join(f"{key}={_quoted(value)}" for key, value in sorted(variables.items()))}
autostart=true
autorestart=true
startsecs=1
startretries={START_RETRIES}
stopsignal={part.stop_signal}
stopasgroup={group}
killasgroup={group}
stopwaitsecs={STOP_SECONDS}
umask=022
redirect_stderr=true
stdout_logfile={_escaped(environment.state_dir / "logs" / f"{part.program}.log")}
stdout_logfile_maxbytes={LOG_BYTES}
stdout_logfile_backups={LOG_BACKUPS}
"""


def _escaped(value: object) -> str:
    return str(value).replace("%", "%%")


def _quoted(value: str) -> str:
    """As supervisor reads it: it knows no escapes, and removes quotation marks from both ends."""
    mark = next((mark for mark in "\"'" if mark not in value), None)
    if mark is None or "\n" in value or value != value.strip("\"'"):
        raise ValueError(f"supervisor cannot pass a value with these quotation marks or line breaks: {value!r}")
    return f"{mark}{_escaped(value)}{mark}"


class Supervisor:
    """The supervisor of one environment, running or not."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    @property
    def pid(self) -> int | None:
        """The running supervisor's process id, or None; a stale pid file is ignored."""
        state = self._environment.state_dir
        try:
            process = psutil.Process(int((state / "supervisord.pid").read_text()))
            is_ours = processes.is_alive(process) and str(state / "supervisord.conf") in process.cmdline()
        except (FileNotFoundError, ValueError, psutil.Error):
            return None
        return process.pid if is_ours else None

    @property
    def is_running(self) -> bool:
        """Whether the supervisor runs."""
        return self.pid is not None

    def launch(self) -> None:
        """Start the supervisor, detached from this terminal; it starts all parts concurrently."""
        state = self._environment.state_dir
        for folder in ("logs", "runtime", "coverage"):
            (state / folder).mkdir(parents=True, exist_ok=True)
        self._environment.runtime_status.parent.mkdir(exist_ok=True)
        (state / "logs" / "supervisord.log").touch(mode=0o600)  # before its umask applies
        config = state / "supervisord.conf"
        write_private(config, configuration(self._environment))
        variables = scrubbed(os.environ) | {"OPTIINFRA_ENV_ID": self._environment.env_id}
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)],
            cwd=paths.ROOT,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"the supervisor did not start:\n{done.stdout}{done.stderr}")

    @contextlib.contextmanager
    def remote(self) -> Iterator[Any]:
        """The supervisor's remote interface. Raises OSError when it cannot be reached, or does not answer in time."""
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(serverurl=f"unix://{self._environment.supervisor_socket}")
        connection = transport._get_connection()
        transport._get_connection = lambda: connection
        connection.connect()  # the transport takes no timeout of its own
        connection.sock.settimeout(stretched(ANSWER_SECONDS))
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            yield proxy.supervisor
        finally:
            transport.close()

    def states(self) -> dict[str, ProcessState]:
        """Every program's state, by name; empty when the supervisor is not running."""
        if self.pid is None:
            return {}
        with self.remote() as remote:
            rows = remote.getAllProcessInfo()
        return {
            row["name"]: ProcessState(
                row["name"], row["statename"], row["pid"], datetime.fromtimestamp(row["start"], UTC)
            )
            for row in rows
        }

    def exits(self, since: datetime) -> list[Exit]:
        """The unexpected exits since then, from the supervisor's log (which is in UTC)."""
        log = self._environment.state_dir / "logs" / "supervisord.log"
        return [each for each in read_exits(log) if each.at >= since]

    def kill(self, program: str) -> None:
        """`kill -9` of a program's process, which the supervisor restarts."""
        os.kill(self.states()[program].pid, signal.SIGKILL)

    def save_logs(self) -> None:
        """Programs write to the log folder themselves."""

    def stop(self) -> None:
        """Stop all parts, in waves, then the supervisor itself."""
        pid = self.pid
        if pid is None:
            return
        process = psutil.Process(pid)
        with self.remote() as remote:
            own = programs(self._environment.parts)
            for wave in sorted({part.stop_order for part in own.values()}):
                self._stop_wave(remote, [name for name, part in own.items() if part.stop_order == wave])
            remote.shutdown()

        def ended() -> bool:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as call:
                call.connect(self._environment.supervisor_socket)  # wakes its main loop
            return not processes.is_alive(process)

        wait_until(ended, "the supervisor to end", STOP_SECONDS, poll=0.02)

    def _stop_wave(self, remote: Any, names: list[str]) -> None:
        for name in names:
            # A fault means that the program is stopped already.
            with contextlib.suppress(xmlrpc.client.Fault):
                remote.stopProcess(name, False)
        settled = {"STOPPED", "EXITED", "FATAL", "UNKNOWN"}

        def running() -> list[str]:
            return [
                row["name"]
                for row in remote.getAllProcessInfo()
                if row["name"] in names and row["statename"] not in settled
            ]

        wait_until(running, f"{', '.join(names)} to stop", 2 * STOP_SECONDS, accept=lambda left: not left, poll=0.02)


def read_exits(log: Path) -> list[Exit]:
    """The unexpected exits in a supervisor's log, oldest first."""
    if not log.exists():
        return []
    found = []
    for line in log.read_text(errors="replace").splitlines():
        match = EXIT_LINE.match(line)
        if match:
            at = datetime.strptime(match["at"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
            found.append(Exit(match["program"], at, match["how"]))
    return found


def recent(exits: list[Exit], program: str, now: datetime) -> list[Exit]:
    """The program's exits within the last minute."""
    return [each for each in exits if each.program == program and now - each.at <= timedelta(minutes=1)]


def processes_of(name: str) -> list[psutil.Process]:
    """The processes of an environment, supervised or orphaned; neither this process nor its ancestors."""
    env_id = environments.env_id(name)
    found = [process for process, value in processes.with_variable("OPTIINFRA_ENV_ID") if value == env_id]
    return found + _postgresql_backends((paths.state_dir(name) / "postgresql" / "data").resolve())


def _postgresql_backends(data: Path) -> list[psutil.Process]:
    """PostgreSQL's child processes: they overwrite their environment, and can use the data longer than their parent."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, FileNotFoundError):
            if process.name() == "postgres" and Path(process.cwd()) == data:
                found.append(process)
    return found
