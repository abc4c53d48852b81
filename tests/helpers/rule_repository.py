"""A repository with a platform of one rule, and mutants of it."""

import subprocess
from pathlib import Path

from testbed.mutants import Mutant
from testbed.worktrees import git

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
