"""Mutation testing as a whole: worktrees, and pytest in each."""

import asyncio
import subprocess
import textwrap
from pathlib import Path

import pytest

from testbed import mutants
from testbed.mutants import Result, Status
from testbed.worktrees import worktree
from tests.helpers.rule_repository import RULE, SOURCE, mutant, repository


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("checkout"))


def test_try_all_counts_only_own_assertions_as_kills(checkout: Path) -> None:
    tried = [
        mutant("noticed"),
        mutant("not-noticed", test="test_positive"),
        mutant("not-applying", old="731"),
        mutant("not-unique", old="hourly"),
        mutant("not-an-assertion", new="None"),
        mutant("failing-before", test="test_wrong_already"),
    ]
    reported: list[Result] = []
    results = asyncio.run(mutants.try_all(tried, reported.append, checkout))
    assert {result.mutant.name: (result.status, *result.reason.splitlines()[:1]) for result in results} == {
        "noticed": (Status.KILLED,),
        "not-noticed": (Status.SURVIVED, "the test passed"),
        "not-applying": (Status.ERROR, f"the old text must occur once in {RULE}, but occurs 0 times"),
        "not-unique": (Status.ERROR, f"the old text must occur once in {RULE}, but occurs 2 times"),
        "not-an-assertion": (
            Status.ERROR,
            f"the test failed by TypeError in {RULE}, not by an assertion of its own:",
        ),
        "failing-before": (Status.ERROR, "the test does not pass on the original (pytest's exit code 1):"),
    }
    assert sorted(result.mutant.name for result in reported) == sorted(one.name for one in tried)
    trees = subprocess.run(["git", "worktree", "list"], cwd=checkout, capture_output=True, text=True, check=True)
    assert len(trees.stdout.splitlines()) == 1, "every worktree is removed"
    assert (checkout / RULE).read_text() == SOURCE


def test_worktree_in_which_an_environment_is_left_running_is_cleaned(checkout: Path, tmp_path: Path) -> None:
    task = f"""
        from pathlib import Path
        from invoke import task

        @task
        def clean(context, name):
            Path({str(tmp_path / "cleaned")!r}).write_text(name)
    """
    with worktree(checkout, "HEAD", tmp_path / "tree") as tree:
        (tree / "tasks.py").write_text(textwrap.dedent(task))
        left = tree / ".testenv" / "left" / "environment.json"
        left.parent.mkdir(parents=True)
        left.touch()
    assert (tmp_path / "cleaned").read_text() == "left"
