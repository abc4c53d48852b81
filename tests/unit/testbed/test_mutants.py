"""Mutation testing: the table, choosing from it, and the verdict on a mutant."""

import asyncio
import subprocess
import textwrap
from pathlib import Path

import pytest

from testbed import mutants, paths
from testbed.mutants import Mutant, MutantError, PytestRun, Result, Status, judge
from testbed.worktrees import git, worktree

RULE = "src/optiinfra/rule.py"
RULE_TESTS = "tests/test_rule.py"
SOURCE = "HOURS = 730\n\n\ndef monthly(hourly: float) -> float:\n    return hourly * HOURS\n"
TESTS = """
from optiinfra import rule

def test_month():
    assert rule.monthly(1.0) == 730

def test_positive():
    assert rule.monthly(1.0) > 0

def test_wrong_already():
    assert rule.monthly(1.0) == 0
"""


# Without the plugins that take most of the time of an inner pytest run.
QUICK_START = {
    "pytest.ini": "[pytest]\naddopts = -p no:schemathesis -p no:hypothesispytest -p no:anyio\n",
    "conftest.py": "def pytest_addoption(parser): parser.addoption('--hypothesis-seed')\n",
}


def mutant(name: str = "short-month", old: str = "730", new: str = "720", test: str = "test_month") -> Mutant:
    return Mutant(name=name, description="A short month.", file=RULE, old=old, new=new, test=f"{RULE_TESTS}::{test}")


def entry(one: Mutant) -> str:
    """The mutant as an entry of the table."""
    return "[[mutant]]\n" + "".join(f"{key} = {value!r}\n" for key, value in one.model_dump().items())


def commit(root: Path, files: dict[str, str]) -> str:
    """Write and commit files, and return the commit."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    author = ("-c", "user.name=t", "-c", "user.email=t@example.test")
    for arguments in (("add", "."), (*author, "commit", "-q", "--no-verify", "-m", "rule")):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    return git(root, "rev-parse", "HEAD")


def repository(root: Path) -> Path:
    """A repository with a platform of one rule, and its tests."""
    subprocess.run(["git", "init", "-q", "-b", "main", root], check=True)
    commit(root, {RULE: SOURCE, "src/optiinfra/__init__.py": "", RULE_TESTS: TESTS} | QUICK_START)
    return root


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


def test_check_sources_refuses_the_installed_platform(checkout: Path, tmp_path: Path) -> None:
    asyncio.run(mutants.check_sources(checkout.resolve()))
    with pytest.raises(MutantError, match="would be imported from"):
        asyncio.run(mutants.check_sources(tmp_path))


def failed(text: str) -> PytestRun:
    return PytestRun(1, (text,), 0, "")


def test_judge_accepts_a_missing_exception_as_an_assertion() -> None:
    assert judge(failed("E  Failed: DID NOT RAISE\n\ntests/unit/test_a.py:3: Failed")) == (Status.KILLED, "")
    status, reason = judge(failed("tests/unit/test_a.py:3: Failed"))
    assert (status, reason[:25]) == (Status.ERROR, "the test failed by Failed")


def test_judge_refuses_an_assertion_of_the_platform() -> None:
    text = "tests/unit/test_a.py:3:\n\nsrc/optiinfra/a.py:7: AssertionError"
    status, reason = judge(failed(text))
    assert status is Status.ERROR
    assert "src/optiinfra/a.py" in reason


def test_judge_refuses_a_test_that_cannot_be_imported() -> None:
    status, reason = judge(PytestRun(4, (), 1, "SyntaxError"))
    assert status is Status.ERROR
    assert "could not be run (pytest's exit code 4)" in reason


def test_judge_refuses_a_failure_beside_an_error() -> None:
    status, reason = judge(PytestRun(1, ("tests/unit/test_a.py:3: AssertionError",), 1, ""))
    assert status is Status.ERROR
    assert "could not be run" in reason


@pytest.mark.parametrize(
    ("written", "instead", "wrong"),
    [
        ("name", "title", "title"),
        ("short-month", "Short month", "name\n"),
        ("A short month.", "", "description\n"),
        ("src/optiinfra", "src/testbed", "file\n"),
        ("rule.py", "prices.csv", "file\n"),
        ("::test_month", "", "test\n"),
        ("730", "", "old\n"),
        ("[[mutant]]", "[[mutant]", "Expected"),
    ],
)
def test_parse_refuses_an_invalid_entry(written: str, instead: str, wrong: str) -> None:
    text = entry(mutant())
    assert mutants.parse(text) == [mutant()]
    with pytest.raises(MutantError, match=wrong):
        mutants.parse(text.replace(written, instead))


@pytest.mark.parametrize("file", ["portal/templates/home.html", "portal/static/live.js"])
def test_templates_and_scripts_can_have_mutants(file: str) -> None:
    assert mutants.parse(entry(mutant()).replace(RULE, f"src/optiinfra/{file}"))


def test_parse_refuses_a_repeated_name() -> None:
    with pytest.raises(MutantError, match="short-month occurs more than once"):
        mutants.parse(entry(mutant()) + entry(mutant()))


def test_select_without_a_match_lists_the_names() -> None:
    known = [mutant("short-month"), mutant("long-month")]
    assert mutants.select(known, "SHORT-") == known[:1]
    assert mutants.select(known, "rule.py") == known
    with pytest.raises(MutantError, match="'year'; known mutants: short-month, long-month"):
        mutants.select(known, "year")


def test_changed_selects_by_file_test_and_entry(tmp_path: Path) -> None:
    root = repository(tmp_path)
    known = [mutant()]
    base = commit(root, {str(mutants.TABLE): entry(known[0])})

    other = commit(root, {"src/optiinfra/other.py": ""})
    assert mutants.changed(known, base, root) == []
    added = mutant("added")
    assert mutants.changed([*known, added], base, root) == [added]
    rule = commit(root, {RULE: SOURCE + "\n"})
    assert mutants.changed(known, other, root) == known
    commit(root, {RULE_TESTS: TESTS + "\n"})
    assert mutants.changed(known, rule, root) == known


def test_base_commit_is_the_merge_base_or_else_the_parent(tmp_path: Path) -> None:
    root = repository(tmp_path)
    first = git(root, "rev-parse", "HEAD")
    assert mutants.base_commit(root, None) is None, "neither origin/main nor a parent"
    second = commit(root, {"src/optiinfra/two.py": ""})
    assert mutants.base_commit(root, None) == first, "no origin/main"
    git(root, "update-ref", "refs/remotes/origin/main", second)
    assert mutants.base_commit(root, None) == first, "origin/main is checked out"
    commit(root, {"src/optiinfra/three.py": ""})
    commit(root, {"src/optiinfra/four.py": ""})
    assert mutants.base_commit(root, None) == second
    assert mutants.base_commit(root, first) == first
    with pytest.raises(MutantError, match="unknown base 'nowhere'"):
        mutants.base_commit(root, "nowhere")


@pytest.mark.parametrize("one", mutants.load(), ids=lambda one: one.name)
def test_mutant_applies_and_names_an_existing_test(one: Mutant) -> None:
    assert (paths.ROOT / one.file).read_text().count(one.old) == 1
    assert one.new != one.old
    module, _, test = one.test.partition("::")
    assert f"def {test.rpartition('::')[2].partition('[')[0]}(" in (paths.ROOT / module).read_text()
