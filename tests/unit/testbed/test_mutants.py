"""Mutation testing: the table, choosing from it, and the verdict on a mutant."""

import asyncio
from pathlib import Path

import pytest

from testbed import mutants, paths
from testbed.mutants import Mutant, MutantError, PytestRun, Status, judge
from testbed.worktrees import git
from tests.helpers.rule_repository import RULE, RULE_TESTS, SOURCE, TESTS, commit, entry, mutant, repository


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("checkout"))


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
