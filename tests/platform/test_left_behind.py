"""`kill -9` of whoever starts, supervises or tests: the next start works, and `invoke clean` leaves nothing.

Another session of this checkout may clear at any moment what the killed ones left: what there is of theirs is looked at
before they are killed, and after it only that it goes. Who says that it was removed is not told then.
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
from testbed import owners, paths, plugin, processes, worktrees
from testbed.environment import is_free
from testbed.parts import HOST
from testbed.supervision import strays
from testbed.waiting import wait_until
from tests.helpers.own_environment import OwnEnvironment, begin, own_environment, runs, traces

GONE_SECONDS = 60  # somebody else may be at it, and has to end processes first
# Tests that go on until they are killed, and tell when they have what they want.
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
    """What those that are killed wrote: pytest keeps it when the test fails."""
    return tmp_path / "output.log"


@pytest.fixture
def own() -> Iterator[OwnEnvironment]:
    """An environment that is not started yet."""
    environment = OwnEnvironment(f"left-{os.getpid()}")
    yield environment
    environment.clean()


@pytest.fixture(scope="module")
def living() -> Iterator[OwnEnvironment]:
    """The environment of a living session, ours: it stays as it is whatever is cleaned beside it."""
    with own_environment(f"living-{os.getpid()}") as environment:
        supervisor = environment.process("supervisor.supervisord").pid
        yield environment
        code, rows = environment.health()
        assert code == 0, rows
        assert {row["restarts"] for row in rows.values()} == {0}
        assert environment.process("supervisor.supervisord").pid == supervisor


def until(process: subprocess.Popen[bytes], reached: Callable[[], bool], what: str) -> None:
    """Wait until a process that runs got there."""

    def there() -> bool:
        assert process.poll() is None, f"it ended before {what}"
        return reached()

    wait_until(there, what, 120, poll=0.005)


def killed(process: subprocess.Popen[bytes], reached: Callable[[], bool], what: str) -> None:
    """`kill -9` of the process itself, none of its children, as soon as it got there."""
    until(process, reached, what)
    process.kill()
    process.wait()


def listens(name: str, part: str) -> bool:
    """Whether the part of an environment that is just being started takes connections."""
    described = environments.read(name)
    with socket.socket() as client:
        return described is not None and client.connect_ex((HOST, described.ports[part])) == 0


def ports_of(name: str) -> set[int]:
    described = environments.read(name)
    assert described is not None
    return set(described.ports.values())


def wait_gone(names: list[str], ports: set[int], started: list[psutil.Process]) -> None:
    """Wait until nothing is left of environments that had these ports, nor of the processes.

    Ports are given to others as soon as they are free, and who looks whether something is there locks it meanwhile.
    """

    def left() -> list[str]:
        held = [f"port {port}" for port in ports - environments.promised_ports() if not is_free(port)]
        living = [processes.in_words(process.pid) for process in started if processes.lives(process)]
        return [trace for name in names for trace in traces(name)] + held + living

    wait_until(left, "what is to be removed to be gone", GONE_SECONDS, accept=lambda what: not what)


def test_a_killed_start_and_a_killed_supervisor_hinder_nobody(own: OwnEnvironment, log: Path) -> None:
    state = paths.state_dir(own.name)
    killed(own.begin(log, "start-test-env"), lambda: listens(own.name, "postgresql"), "PostgreSQL listens")
    ports = ports_of(own.name)
    own.clean()
    wait_gone([own.name], ports, [])

    killed(own.begin(log, "start-test-env"), paths.lock_file(own.name).exists, "it holds the lock")
    killed(own.begin(log, "start-test-env"), (state / "environment.json").exists, "it is described")
    killed(own.begin(log, "start-test-env"), (state / "supervisord.pid").exists, "the supervisor runs")
    started = own.invoke("start-test-env")
    assert started.returncode == 0, started.stdout + started.stderr

    supervisor = own.process("supervisor.supervisord")
    (server,) = [each for each in supervisor.children() if each.name() == "postgres"]
    supervisor.kill()
    # One of PostgreSQL's own processes outlives its parent, and holds the data.
    (checkpointer,) = [each for each in server.children() if "checkpointer" in "".join(each.cmdline())]
    checkpointer.suspend()
    server.kill()
    again = own.invoke("start-test-env")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "stopped what nobody supervised" in again.stdout
    assert not processes.lives(checkpointer)
    assert own.health()[0] == 0

    ports = ports_of(own.name)
    own.process("supervisor.supervisord").kill()
    own.clean()
    wait_gone([own.name], ports, [])


def test_what_killed_sessions_left_is_removed_and_what_living_ones_have_is_not(
    own: OwnEnvironment, living: OwnEnvironment, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(plugin.GIVEN, raising=False)
    given, alone = tmp_path / "test_given.py", tmp_path / "test_own.py"
    given.write_text(WITH_GIVEN)
    alone.write_text(WITH_OWN)
    options = ["-p", "no:cacheprovider", f"--config-file={paths.ROOT / 'pyproject.toml'}", f"--rootdir={paths.ROOT}"]
    session = begin(log, sys.executable, "-m", "tests.helpers.nox_session", "left", *options, "-n1", str(given))
    run = begin(log, sys.executable, "-m", "pytest", *options, str(alone))
    try:
        until(session, given.with_suffix(".reached").exists, "the session's test runs")
        until(run, alone.with_suffix(".reached").exists, "the run's test runs")
        names = [f"left-{session.pid}", f"pytest-{run.pid}", f"contract-redis-{run.pid}"]
        assert all(traces(name) for name in names)
        ports = {port for name in names for port in ports_of(name)}
        assert ports & ports_of(living.name) == set()
        pytests = working_for(session.pid)
        assert pytests != []
        started = pytests + [process for name in names for process in strays(name)]
    finally:
        session.kill()
        run.kill()
        session.wait()
        run.wait()

    own.clean()
    wait_gone(names, ports, started)


def working_for(pid: int) -> list[psutil.Process]:
    """What a session, by its process id, started and still runs."""
    return [process for process, mark in processes.marked(owners.VARIABLE) if mark == owners.mark(pid)]


def test_two_starts_at_once_make_one_environment_that_goes_without_the_other(
    own: OwnEnvironment, living: OwnEnvironment, log: Path
) -> None:
    starts = [own.begin(log, "start-test-env") for _ in range(2)]
    assert [start.wait(timeout=600) for start in starts] == [0, 0]
    assert own.process("supervisor.supervisord").pid
    assert own.health()[0] == 0
    assert ports_of(own.name) & ports_of(living.name) == set()
    own.clean()
    wait_gone([own.name], set(), [])
    assert traces(living.name) != []


def test_killed_mutants_session_leaves_no_worktree(own: OwnEnvironment, log: Path) -> None:
    def trees() -> list[str]:
        return [str(tree) for tree in worktrees.listed(paths.ROOT) if f"-{run.pid}-" in tree.parent.name]

    def tests() -> list[psutil.Process]:
        return [process for process in working_for(run.pid) if runs(process, "pytest")]

    run = begin(log, sys.executable, "-m", "testbed.mutants", "-k", "month-720-hours")
    try:
        until(run, lambda: bool(tests()), "its pytest runs")
        started = tests()
        for process in started:
            process.suspend()  # it would end by itself
        assert trees() != []
    finally:
        run.kill()
        run.wait()

    own.clean()
    wait_gone([], set(), started)
    wait_until(trees, "its worktrees to be removed", GONE_SECONDS, accept=lambda left: not left)
