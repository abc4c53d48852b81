"""`invoke ci-matrix`: the jobs of the CI workflow, from the sessions of noxfile.py and the Pythons of pyproject.toml.

A session added to noxfile.py is in the matrix by itself, unless it is tagged `manual`. One tagged `backends` has a job
for each backend, one tagged `pythons` for each supported Python.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from testbed import paths
from testbed.environment import BACKENDS

EVENTS_OF_A_CHANGE = ("pull_request", "merge_group")
"""For them only the mutants of what changed are tried."""
_CLASSIFIER = re.compile(r"Programming Language :: Python :: (3\.\d+)")
_MUTANTS_OF_A_CHANGE = "--changed"
_OUTPUT, _SUMMARY = "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"


def sessions(root: Path = paths.ROOT) -> list[dict[str, Any]]:
    """Every session with its tags, as nox lists them."""
    command = [sys.executable, "-m", "nox", "--noxfile", str(root / "noxfile.py"), "--list", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise ValueError(f"nox does not list its sessions: {done.stderr.strip()}")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def pythons(root: Path = paths.ROOT) -> list[str]:
    """The supported versions, oldest first, from the classifiers in pyproject.toml."""
    classifiers = tomllib.loads((root / "pyproject.toml").read_text())["project"]["classifiers"]
    return [match[1] for each in classifiers if (match := _CLASSIFIER.fullmatch(each))]


def matrix(
    listed: Iterable[Mapping[str, Any]],
    versions: list[str],
    *,
    every_mutant: bool = True,
    session: str = "",
    backend: str = "",
    python: str = "",
) -> list[dict[str, str]]:
    """One entry for each job: name, session, backend, Python and arguments of the session.

    Not `every_mutant`: only those of what changed. `session`, `backend` and `python` choose, as by hand; ValueError if
    nothing is left.
    """
    made = [
        job
        for each in listed
        for job in _jobs(each, versions)
        if session in ("", job["session"]) and backend in ("", job["backend"]) and python in ("", job["python"])
    ]
    if not made:
        wanted = ", ".join(filter(None, (session, backend, python)))
        raise ValueError(f"no job of the matrix matches {wanted}")
    if not every_mutant:
        for job in made:
            if job["session"] == "mutants":
                job["arguments"] = _MUTANTS_OF_A_CHANGE
    return made


def _jobs(session: Mapping[str, Any], versions: list[str]) -> Iterator[dict[str, str]]:
    tags = session["tags"]
    if "manual" in tags:
        return
    for backend in BACKENDS if "backends" in tags else BACKENDS[:1]:
        for python in versions if "pythons" in tags else versions[:1]:
            words = [session["name"], *([backend] if "backends" in tags else [])]
            words += [python] if "pythons" in tags else []
            yield {
                "name": " ".join(words),
                "session": session["name"],
                "backend": backend,
                "python": python,
                "arguments": "",
            }


def summary(title: str, results: Path) -> str:
    """The counts of a JUnit file, and its tests that did not pass, in Markdown."""
    if not results.exists():
        return f"### {title}\n\nNo test was run.\n"
    cases = list(ElementTree.parse(results).iter("testcase"))  # noqa: S314  (our own)
    kinds = {kind: [case for case in cases if case.find(kind) is not None] for kind in ("failure", "error", "skipped")}
    passed = len(cases) - sum(map(len, kinds.values()))
    counts = [f"{passed} passed", *(f"{len(found)} {kind}" for kind, found in kinds.items() if found)]
    lines = [f"- `{case.get('classname')}::{case.get('name')}` ({kind})" for kind in kinds for case in kinds[kind]]
    return "\n".join([f"### {title}", "", ", ".join(counts), "", *lines, ""])


def set_output(name: str, value: str) -> None:
    """Set an output of this step in GitHub Actions; nothing elsewhere."""
    _append(_OUTPUT, f"{name}={value}\n")


def add_to_summary(text: str) -> None:
    """Add Markdown to the summary of this job in GitHub Actions; nothing elsewhere."""
    _append(_SUMMARY, text)


def _append(variable: str, text: str) -> None:
    if file := os.environ.get(variable):
        with Path(file).open("a", encoding="utf-8") as output:
            output.write(text)
