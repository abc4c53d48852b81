"""`kill -9` of whoever starts, supervises or tests: the next start works, and `invoke clean` leaves nothing."""

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
from testbed.waiting import wait_until
from tests.helpers.own_environment import OwnEnvironment, begin, own_environment, traces

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
    environment.invoke("clean")


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


def killed(process: subprocess.Popen[bytes], reached: Callable[[], bool], what: str) -> None:
    """`kill -9` of the process itself, none of its children, as soon as it got there."""

    def there() -> bool:
        assert process.poll() is None, f"it ended before {what}"
        return reached()

    wait_until(there, what, 120, poll=0.005)
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


def held(ports: set[int]) -> list[int]:
    return [port for port in ports if not is_free(port)]


def test_a_killed_start_and_a_killed_supervisor_hinder_nobody(own: OwnEnvironment, log: Path) -> None:
    state = paths.state_dir(own.name)
    killed(own.begin(log, "start-test-env"), lambda: listens(own.name, "postgresql"), "PostgreSQL listens")
    ports = ports_of(own.name)
    assert own.invoke("clean").returncode == 0
    assert traces(own.name) == []
    assert held(ports) == []

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
    assert own.invoke("clean").returncode == 0
    assert traces(own.name) == []
    assert held(ports) == []


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
        killed(session, given.with_suffix(".reached").exists, "the session's test runs")
        killed(run, alone.with_suffix(".reached").exists, "the run's test runs")
    finally:
        session.kill()
        run.kill()
    names = [f"left-{session.pid}", f"pytest-{run.pid}", f"contract-redis-{run.pid}"]
    ports = {port for name in names for port in ports_of(name)}
    assert all(traces(name) for name in names)
    assert len(working_for(session.pid)) >= 1, "pytest goes on though nox is dead"
    assert ports & ports_of(living.name) == set()

    done = own.invoke("clean")

    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"removed environment '{name}'" in done.stdout for name in names), done.stdout
    assert {name: traces(name) for name in names} == {name: [] for name in names}
    assert held(ports) == []
    assert working_for(session.pid) + working_for(run.pid) == []


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
    assert own.invoke("clean").returncode == 0
    assert traces(own.name) == []
    assert traces(living.name) != []


def test_breakages_that_were_killed_leave_no_worktree(own: OwnEnvironment, log: Path) -> None:
    def trees() -> list[str]:
        return [str(tree) for tree in worktrees.listed(paths.ROOT) if f"-{run.pid}-" in tree.parent.name]

    run = begin(log, sys.executable, "-m", "testbed.breakages", "-k", "month_of_720_hours")
    killed(run, lambda: bool(trees()), "a worktree is made")
    assert trees() != []
    assert own.invoke("clean").returncode == 0
    assert trees() == []
    assert working_for(run.pid) == []
