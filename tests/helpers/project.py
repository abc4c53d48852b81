"""A copy of this checkout with other tests, in which commands are run as a person runs them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from testbed import paths, processes, sessions
from testbed.waiting import stretched
from testbed.worktrees import git, variables

COMMAND_SECONDS = 120.0
KEPT_TESTS = ("tests/__init__.py", "tests/conftest.py", "tests/helpers/")
OUTCOMES = {"failure": "failed", "error": "error", "skipped": "skipped"}


@dataclass(frozen=True)
class Done:
    """A command that has ended, and the outcome of each test that it ran."""

    code: int
    output: str
    outcomes: dict[str, str]

    def tests(self, outcome: str) -> set[str]:
        """The tests with this outcome."""
        return {name for name, seen in self.outcomes.items() if seen == outcome}


class Project:
    """The copy. Its commands use this virtualenv, but the copy's sources."""

    def __init__(self, root: Path, tests: Mapping[str, str]) -> None:
        self.root = root
        listed = git(paths.ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
        kept = [name for name in listed if not name.startswith("tests/") or name.startswith(KEPT_TESTS)]
        for name in filter(lambda name: (paths.ROOT / name).is_file(), kept):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(paths.ROOT / name, root / name)
        for name, text in tests.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        author = ("-c", "user.name=t", "-c", "user.email=t@example.test")
        for command in (("init", "-q"), ("add", "."), (*author, "commit", "-q", "--no-verify", "-m", "copy")):
            git(root, *command)

    def run(self, module: str, *arguments: str, environment: str | None = None) -> Done:
        """Run `python -m MODULE`; tests use the environment of this name."""
        results = self.root / "test-results.xml"
        results.unlink(missing_ok=True)
        # These runs do not belong to the session of this test.
        known = {name: value for name, value in variables(self.root).items() if name != sessions.VARIABLE}
        known |= {} if environment is None else {"OPTIINFRA_TESTENV": environment}
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=self.root,
            env=known,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=stretched(COMMAND_SECONDS),
        )
        return Done(done.returncode, done.stdout, _outcomes(results))

    def pytest(self, *arguments: str, environment: str | None = None) -> Done:
        """Run pytest."""
        return self.run("pytest", "--junitxml=test-results.xml", *arguments, environment=environment)

    def leftovers(self) -> list[str]:
        """What is in the folder of the project's environments, and the processes that it has started."""
        folder = self.root / ".testenv"
        files = [str(path) for path in folder.iterdir()] if folder.exists() else []
        started = os.pathsep.join([str(self.root / "src"), str(self.root)])
        found = [process for process, value in processes.with_variable("PYTHONPATH") if value == started]
        return [*files, *(processes.describe(process.pid) for process in found)]


def _outcomes(results: Path) -> dict[str, str]:
    """The outcome of each test of a JUnit report; empty if there is none."""
    if not results.exists():
        return {}
    cases = ElementTree.parse(results).iter("testcase")  # noqa: S314  (our own)
    return {
        case.get("name", ""): next((OUTCOMES[each.tag] for each in case if each.tag in OUTCOMES), "passed")
        for case in cases
    }
