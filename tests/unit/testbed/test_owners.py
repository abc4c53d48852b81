"""Whose something is, and whether that session lives: by number and time of start."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from testbed import owners, paths
from testbed.owners import Owner
from testbed.waiting import wait_until
from tests.unit.testbed.conftest import Sleeper


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)


def test_a_process_lives_until_it_ends_though_nobody_waited_for_it(sleeper: Sleeper) -> None:
    process = sleeper()
    owner = Owner.of(process)
    assert owner.alive
    process.kill()
    wait_until(lambda: not owner.alive, "the zombie to count as dead", 10)
    process.wait()
    assert not owner.alive


def test_a_number_given_to_another_process_since_is_not_believed() -> None:
    this = Owner.of(psutil.Process())
    assert this.alive
    assert not dataclasses.replace(this, started=this.started - 60).alive


def test_an_owner_is_the_process_itself_or_one_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(owners.VARIABLE, raising=False)
    assert owners.given() is None
    for process in (psutil.Process(), psutil.Process(os.getppid())):
        monkeypatch.setenv(owners.VARIABLE, owners.mark(process.pid))
        assert owners.given() == Owner.of(process)


def test_nothing_is_begun_for_a_session_that_has_ended(sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(owners.VARIABLE, owners.mark(sleeper().pid))  # alive, but it did not start us
    with pytest.raises(ValueError, match="has ended"):
        owners.given()


def test_only_what_works_for_a_dead_session_of_this_checkout_is_deserted(sleeper: Sleeper, dead: int) -> None:
    deserted = sleeper(**{owners.VARIABLE: owners.mark(dead)})
    sleeper(**{owners.VARIABLE: owners.mark(os.getpid())})
    sleeper(**{owners.VARIABLE: f"{dead}:/another/checkout"})
    sleeper(**{owners.VARIABLE: ""})
    assert owners.deserted() == [deserted]


def test_who_got_the_number_later_started_nothing_earlier(sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = sleeper(**{owners.VARIABLE: owners.mark(os.getppid())})
    assert owners.deserted() == []
    later = psutil.Process.create_time(earlier) + 1
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: later if self.pid == os.getppid() else later - 1)
    assert owners.deserted() == [earlier]


def test_a_process_does_not_find_itself_nor_those_that_started_it(dead: int) -> None:
    code = f"from testbed import owners, paths; paths.ROOT = {str(paths.ROOT)!r}; print(len(owners.deserted()))"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], check=True)"
    marked = os.environ | {owners.VARIABLE: owners.mark(dead)}
    done = subprocess.run([sys.executable, "-c", outer], env=marked, capture_output=True, text=True, check=False)
    assert done.stdout == "0\n", done.stderr
