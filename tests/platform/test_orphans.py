"""`kill -9` of starts, supervisors and sessions: the next start works, and `invoke clean` leaves nothing.

Another session of this checkout may remove the orphans at any moment. So these tests look at them before the kill, and
afterwards check only that they disappear, not which process reports that.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from testbed import environment as environments
from testbed import paths, plugin, processes, sessions, worktrees
from testbed.environment import is_free
from testbed.parts import HOST
from testbed.supervision import processes_of
from testbed.waiting import wait_until
from tests.helpers.own_environment import OwnEnvironment, begin, own_environment, runs, traces

REMOVAL_SECONDS = 60  # another session may be removing it, and has to end processes first
# Tests that run until they are killed, and create a file as soon as they have their environment.
WITH_GIVEN = """
import threading
from pathlib import Path

def test_in_the_given_environment(environment):
    Path(__file__).with_suffix(".reached").touch()
    threading.Event().wait()
"""
WITH_OWN = """
import threading
from pathlib import Path
import testbed.environment
from tests.contract.engine import running

testbed.environment.DEFAULT_NAME = "nobody-starts-this"

def test_in_an_environment_of_its_own(environment):
    with running("redis"):
        Path(__file__).with_suffix(".reached").touch()
        threading.Event().wait()
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The output of the killed processes; pytest keeps the file when the test fails."""
    return tmp_path / "output.log"


@pytest.fixture
def own() -> Iterator[OwnEnvironment]:
    """An environment that is not started yet."""
    environment = OwnEnvironment(f"orphaned-{os.getpid()}")
    yield environment
    environment.clean()


@pytest.fixture(scope="module")
def unaffected() -> Iterator[OwnEnvironment]:
    """An environment of our own session, which is alive: it must stay as it is whatever is cleaned beside it."""
    with own_environment(f"unaffected-{os.getpid()}") as environment:
        supervisor = environment.process("supervisor.supervisord").pid
        yield environment
        code, rows = environment.health()
        assert code == 0, rows
        assert {row["restarts"] for row in rows.values()} == {0}
        assert environment.process("supervisor.supervisord").pid == supervisor


def wait_for(process: subprocess.Popen[bytes], reached: Callable[[], bool], what: str) -> None:
    """Wait until a running process has reached a state."""

    def has_reached() -> bool:
        assert process.poll() is None, f"it ended before {what}"
        return reached()

    wait_until(has_reached, what, 120, poll=0.005)


def kill_when(process: subprocess.Popen[bytes], reached: Callable[[], bool], what: str) -> None:
    """`kill -9` of the process, not of its children, as soon as it has reached a state."""
    wait_for(process, reached, what)
    process.kill()
    process.wait()


def listens(name: str, part: str) -> bool:
    """Whether a part of an environment that is being started accepts connections."""
    described = environments.read(name)
    with socket.socket() as client:
        return described is not None and client.connect_ex((HOST, described.ports[part])) == 0


def ports_of(name: str) -> set[int]:
    described = environments.read(name)
    assert described is not None
    return set(described.ports.values())


def wait_until_removed(names: list[str], ports: set[int], started: list[psutil.Process]) -> None:
    """Wait until nothing is left of these environments, their ports and these processes.

    Free ports are soon assigned to other environments, so those do not count.
    """

    def remaining() -> list[str]:
        held = [f"port {port}" for port in ports - environments.reserved_ports() if not is_free(port)]
        alive = [processes.describe(process.pid) for process in started if processes.is_alive(process)]
        return [trace for name in names for trace in traces(name)] + held + alive

    wait_until(remaining, "everything to be removed", REMOVAL_SECONDS, accept=lambda left: not left)


def test_start_succeeds_after_a_killed_start_and_after_a_killed_supervisor(own: OwnEnvironment, log: Path) -> None:
    state = paths.state_dir(own.name)
    kill_when(own.begin(log, "start-test-env"), lambda: listens(own.name, "postgresql"), "PostgreSQL listens")
    ports = ports_of(own.name)
    own.clean()
    wait_until_removed([own.name], ports, [])

    kill_when(own.begin(log, "start-test-env"), paths.lock_file(own.name).exists, "it holds the lock")
    kill_when(own.begin(log, "start-test-env"), (state / "environment.json").exists, "it is described")
    kill_when(own.begin(log, "start-test-env"), (state / "supervisord.pid").exists, "the supervisor runs")
    started = own.invoke("start-test-env")
    assert started.returncode == 0, started.stdout + started.stderr

    supervisor = own.process("supervisor.supervisord")
    (server,) = [each for each in supervisor.children() if each.name() == "postgres"]
    supervisor.kill()
    # One of PostgreSQL's child processes outlives its parent and still uses the data.
    (checkpointer,) = [each for each in server.children() if "checkpointer" in "".join(each.cmdline())]
    checkpointer.suspend()
    server.kill()
    again = own.invoke("start-test-env")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "stopped orphaned processes" in again.stdout
    assert not processes.is_alive(checkpointer)
    assert own.health()[0] == 0

    ports = ports_of(own.name)
    own.process("supervisor.supervisord").kill()
    own.clean()
    wait_until_removed([own.name], ports, [])


def test_clean_removes_what_killed_sessions_left_and_nothing_of_running_sessions(
    own: OwnEnvironment, unaffected: OwnEnvironment, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(plugin.GIVEN, raising=False)
    given, alone = tmp_path / "test_given.py", tmp_path / "test_own.py"
    given.write_text(WITH_GIVEN)
    alone.write_text(WITH_OWN)
    options = ["-p", "no:cacheprovider", f"--config-file={paths.ROOT / 'pyproject.toml'}", f"--rootdir={paths.ROOT}"]
    monkeypatch.delenv(sessions.VARIABLE)  # the killed runs hold sessions of their own
    session = begin(log, sys.executable, "-m", "tests.helpers.nox_session", "killed", *options, "-n1", str(given))
    run = begin(log, sys.executable, "-m", "pytest", *options, str(alone))
    try:
        wait_for(session, given.with_suffix(".reached").exists, "the session's test runs")
        wait_for(run, alone.with_suffix(".reached").exists, "the run's test runs")
        names = [f"killed-{session.pid}", f"pytest-{run.pid}", f"contract-redis-{run.pid}"]
        assert all(traces(name) for name in names)
        ports = {port for name in names for port in ports_of(name)}
        assert ports & ports_of(unaffected.name) == set()
        pytests = working_for(session.pid)
        assert pytests != []
        started = pytests + [process for name in names for process in processes_of(name)]
    finally:
        session.kill()
        run.kill()
        session.wait()
        run.wait()

    own.clean()
    wait_until_removed(names, ports, started)


def working_for(pid: int) -> list[psutil.Process]:
    """The processes of the session that a process holds."""
    described = f"session of process {pid}"
    return [
        process
        for process, folder in processes.with_variable(sessions.VARIABLE)
        if sessions.describe(Path(folder)) == described
    ]


def test_two_concurrent_starts_make_one_environment_that_is_cleaned_alone(
    own: OwnEnvironment, unaffected: OwnEnvironment, log: Path
) -> None:
    starts = [own.begin(log, "start-test-env") for _ in range(2)]
    assert [start.wait(timeout=600) for start in starts] == [0, 0]
    assert own.process("supervisor.supervisord").pid
    assert own.health()[0] == 0
    assert ports_of(own.name) & ports_of(unaffected.name) == set()
    own.clean()
    wait_until_removed([own.name], set(), [])
    assert traces(unaffected.name) != []


def test_killed_mutants_session_leaves_no_worktree(
    own: OwnEnvironment, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trees() -> list[Path]:
        described = f"session of process {run.pid}"
        found = worktrees.all_of(paths.ROOT)
        return [tree for tree in found if described in map(sessions.describe, tree.parents)]

    def tests() -> list[psutil.Process]:
        return [process for process in working_for(run.pid) if runs(process, "pytest")]

    monkeypatch.delenv(sessions.VARIABLE)  # the killed run holds a session of its own
    run = begin(log, sys.executable, "-m", "testbed.mutants", "-k", "month-720-hours")
    try:
        wait_for(run, lambda: bool(tests()), "its pytest runs")
        started = tests()
        for process in started:
            process.suspend()  # otherwise it would end by itself
        assert trees() != []
    finally:
        run.kill()
        run.wait()

    own.clean()
    wait_until_removed([], set(), started)
    wait_until(trees, "its worktrees to be removed", REMOVAL_SECONDS, accept=lambda left: not left)
