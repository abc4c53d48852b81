"""A session is alive as long as its process is, and everything that the process starts inherits it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed import paths, sessions
from testbed.waiting import wait_until
from tests.helpers.processes import Sleeper

CHECKOUT = paths.ROOT
HOLD = """
import subprocess, sys, time
from pathlib import Path
from testbed import paths, sessions
paths.ROOT = Path({root!r})
with sessions.hold() as folder:
    {body}
    time.sleep(600)
"""
HOLD_IN_NOXFILE = """
import sys, time
from pathlib import Path
sys.path.insert(0, {checkout!r})
import noxfile
noxfile.ROOT = Path({root!r})
noxfile.held_session()
time.sleep(600)
"""
START_A_CHILD = (
    "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], close_fds=False).pid, flush=True)"
)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.delenv(sessions.VARIABLE, raising=False)


def begun_session() -> Path:
    """The folder of the only session, once it is held."""
    (folder,) = wait_until(lambda: list(filter(sessions.is_alive, sessions.all_folders())), "a session", 20)
    return folder


def test_hold_names_the_session_to_children_and_removes_it_at_the_end() -> None:
    with sessions.hold() as folder:
        assert os.environ[sessions.VARIABLE] == str(folder)
        assert sessions.current() == folder
        assert sessions.all_folders() == {folder}
        assert sessions.is_of_this_checkout(folder)
    assert sessions.VARIABLE not in os.environ
    assert sessions.current() is None
    assert not paths.environments_dir().exists()


def test_hold_inside_a_session_uses_that_one() -> None:
    with sessions.hold() as outer:
        with sessions.hold() as inner:
            assert inner == outer
        assert sessions.is_alive(outer)


def test_two_sessions_are_alive_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    with sessions.hold() as first:
        monkeypatch.delenv(sessions.VARIABLE)
        with sessions.hold() as second:
            assert first != second
            assert sessions.is_alive(first)
        assert not sessions.is_alive(second)
        assert sessions.is_alive(first)


@pytest.mark.parametrize("code", [HOLD, HOLD_IN_NOXFILE], ids=["testbed", "noxfile"])
def test_session_of_a_killed_process_has_ended_before_the_process_was_waited_for(
    sleeper: Sleeper, code: str, tmp_path: Path
) -> None:
    process = sleeper(code.format(root=str(tmp_path), checkout=str(CHECKOUT), body="pass"))
    folder = begun_session()
    assert sessions.describe(folder) == f"session of process {process.pid}"
    process.kill()
    wait_until(lambda: not sessions.is_alive(folder), "the session to end", 10)


def test_session_ends_though_a_child_of_its_process_is_alive(tmp_path: Path) -> None:
    code = HOLD.format(root=str(tmp_path), body=START_A_CHILD)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        folder = begun_session()
        process.kill()
        process.wait()
        try:
            assert not sessions.is_alive(folder)
        finally:
            os.kill(child, 9)


def test_nothing_is_begun_for_a_session_that_has_ended(ended_session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (ended_session, paths.environments_dir() / "4711-removed.session"):
        monkeypatch.setenv(sessions.VARIABLE, str(folder))
        with pytest.raises(ValueError, match="that session has ended"):
            sessions.current()
        with pytest.raises(ValueError, match="that session has ended"), sessions.hold():
            pass
