"""Breaking a platform, and telling a test that noticed from one that did not."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from testbed import breakages, paths
from testbed.breakages import BreakageError, Run, not_red

RULE = "src/optiinfra/rule.py"
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


def patch(folder: Path, name: str, old: str, new: str, test: str = "test_month") -> Path:
    """A patch of the rule's first line."""
    header = f"Breaks it.\n\nTest: tests/test_rule.py::{test}\n\ndiff --git a/{RULE} b/{RULE}\n"
    file = folder / f"{name}.patch"
    file.write_text(f"{header}--- a/{RULE}\n+++ b/{RULE}\n@@ -1,2 +1,2 @@\n-{old}\n+{new}\n \n")
    return file


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a platform of one rule, and its tests."""
    root = tmp_path_factory.mktemp("checkout")
    for name, text in {RULE: SOURCE, "src/optiinfra/__init__.py": "", "tests/test_rule.py": TESTS}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    who = ("-c", "user.name=t", "-c", "user.email=t@example.test")
    for arguments in (("init", "-q"), ("add", "."), (*who, "commit", "-q", "--no-verify", "-m", "one rule")):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    return root


def test_only_a_green_test_that_turns_red_by_an_assertion_counts(checkout: Path, tmp_path: Path) -> None:
    month, short = "HOURS = 730", "HOURS = 720"
    for name, old, new, test in (
        ("noticed", month, short, "test_month"),
        ("not_noticed", month, short, "test_positive"),
        ("not_applying", "HOURS = 731", short, "test_month"),
        ("not_an_assertion", month, "HOURS = None", "test_month"),
        ("not_green_before", month, short, "test_wrong_already"),
    ):
        patch(tmp_path, name, old, new, test)
    said: list[str] = []
    tried = breakages.try_all(
        breakages.chosen("", tmp_path), lambda result: said.append(result.breakage.name), checkout
    )
    faults = {result.breakage.name: (result.fault or "").splitlines()[:1] for result in asyncio.run(tried)}
    assert faults == {
        "noticed": [],
        "not_noticed": ["the test stayed green"],
        "not_applying": [f"the patch does not apply: git apply: error: patch failed: {RULE}:1"],
        "not_an_assertion": [f"the test failed by TypeError in {RULE}, not by an assertion of its own:"],
        "not_green_before": ["the test is not green as it is (pytest's exit code 1):"],
    }
    assert sorted(said) == sorted(faults)
    trees = subprocess.run(["git", "worktree", "list"], cwd=checkout, capture_output=True, text=True, check=True)
    assert len(trees.stdout.splitlines()) == 1, "worktrees are removed whatever happens"
    assert (checkout / RULE).read_text() == SOURCE


def test_the_installed_platform_is_not_taken_for_the_worktrees(checkout: Path, tmp_path: Path) -> None:
    asyncio.run(breakages._check_sources(checkout.resolve()))
    with pytest.raises(BreakageError, match="would be imported from"):
        asyncio.run(breakages._check_sources(tmp_path))


def red(text: str) -> Run:
    return Run(1, (text,), 0, "")


def test_an_exception_that_did_not_come_is_an_assertion_too() -> None:
    assert not_red(red("E   Failed: DID NOT RAISE ValueError\n\ntests/unit/test_a.py:3: Failed")) is None
    assert "failed by Failed" in str(not_red(red("E   Failed: Timeout (>60.0s)\n\ntests/unit/test_a.py:3: Failed")))


def test_what_the_platform_asserts_is_not_the_tests_assertion() -> None:
    text = "tests/unit/test_a.py:3:\n\nsrc/optiinfra/a.py:7: AssertionError"
    assert "src/optiinfra/a.py" in str(not_red(red(text)))


def test_what_cannot_be_imported_any_more_proves_nothing() -> None:
    assert "could not be run (pytest's exit code 4)" in str(not_red(Run(4, (), 1, "SyntaxError")))


def test_a_failure_beside_an_error_proves_nothing() -> None:
    assert "could not be run" in str(not_red(Run(1, ("tests/unit/test_a.py:3: AssertionError",), 1, "")))


@pytest.mark.parametrize(
    ("written", "instead", "wrong"),
    [
        ("Test: tests", "tests", "one `Test: <node id>`"),
        ("Breaks it.\n\n", "", "wanted what it breaks"),
        ("src/optiinfra", "src/testbed", "one file under src/optiinfra"),
        ("-HOURS = 730\n", "-HOURS = 730\n-\n", "one changed line, found '--[+]'"),
    ],
)
def test_what_is_no_breakage_is_said(tmp_path: Path, written: str, instead: str, wrong: str) -> None:
    file = patch(tmp_path, "month", "HOURS = 730", "HOURS = 720")
    file.write_text(file.read_text().replace(written, instead))
    with pytest.raises(BreakageError, match=wrong):
        breakages.read(file)


def test_a_word_that_none_holds_lists_the_names(tmp_path: Path) -> None:
    patch(tmp_path, "month", "HOURS = 730", "HOURS = 720")
    assert [each.name for each in breakages.chosen("BREAKS", tmp_path)] == ["month"]
    with pytest.raises(BreakageError, match="'year'; there are: month"):
        breakages.chosen("year", tmp_path)


@pytest.mark.parametrize("file", sorted(breakages.FOLDER.glob("*.patch")), ids=lambda file: file.stem)
def test_every_patch_names_a_test_that_there_is_and_applies(file: Path) -> None:
    breakage = breakages.read(file)
    module, _, test = breakage.test.partition("::")
    assert f"def {test.partition('[')[0]}(" in (paths.ROOT / module).read_text()
    applied = subprocess.run(
        ["git", "apply", "--check", file], cwd=paths.ROOT, capture_output=True, text=True, check=False
    )
    assert applied.returncode == 0, applied.stderr
