"""Prerequisites: versions, the machine's resources, and what counts as missing."""

import re
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from rich.console import Console

from testbed import chromium, paths, prerequisites
from testbed.prerequisites import Requirement, missing, parse_version, requirements, table

GIGABYTE = 10**9


def row(name: str, backend: str = "embedded") -> Requirement:
    return {each.name: each for each in requirements(backend, None)}[name]


def give_memory(monkeypatch: pytest.MonkeyPatch, total: float, available: float) -> None:
    memory = SimpleNamespace(total=total * GIGABYTE, available=available * GIGABYTE)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


def give_output(monkeypatch: pytest.MonkeyPatch, outputs: dict[tuple[str, ...], str]) -> None:
    monkeypatch.setattr(prerequisites, "output_of", lambda *command: outputs.get(command, ""))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("git version 2.30.1", (2, 30, 1)),
        ("Docker version 20.10.24+dfsg1, build 297e128", (20, 10, 24)),
        ("Docker Compose version v2.0.0", (2, 0, 0)),
        ("no number", ()),
        ("", ()),
    ],
)
def test_parse_version_takes_the_first_dotted_number(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("found", "ok"),
    [("git version 2.30.0", True), ("git version 2.4.9", False), ("git version 3.0", True), ("", False)],
)
def test_tool_version_is_compared_by_number(monkeypatch: pytest.MonkeyPatch, found: str, ok: bool) -> None:
    give_output(monkeypatch, {("git", "--version"): found})
    assert row("Git").ok is ok


def test_memory_is_judged_by_its_total(monkeypatch: pytest.MonkeyPatch) -> None:
    give_memory(monkeypatch, total=8.1, available=0.5)
    assert row("memory", "compose").ok
    assert row("memory", "compose").found == "8.1 GB in total (0.5 GB available)"
    give_memory(monkeypatch, total=7.9, available=7.9)
    assert not row("memory", "compose").ok
    assert row("memory", "embedded").ok


def test_missing_ignores_tools_of_the_other_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    give_output(monkeypatch, {("git", "--version"): "git version 2.43.0"})
    give_memory(monkeypatch, total=16, available=8)
    tools = {"Docker", "Docker Compose"}
    assert not tools & {each.name for each in missing(requirements("embedded", None), "embedded")}
    assert tools <= {each.name for each in missing(requirements("compose", None), "compose")}


def test_chromium_is_shown_with_its_version_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chromium, "executable", lambda: Path("/opt/chromium"))
    give_output(monkeypatch, {("/opt/chromium", "--version"): "Chromium 156.0.8078.108\n"})
    assert (row("Chromium").found, row("Chromium").ok) == ("Chromium 156.0.8078.108", True)

    def none() -> Path:
        raise chromium.ChromiumError("none")

    monkeypatch.setattr(chromium, "executable", none)
    assert (row("Chromium").found, row("Chromium").ok) == ("-", False)


@pytest.mark.parametrize("name", ["pytest", "nox", "invoke"])
def test_our_minimum_version_is_that_of_pyproject(name: str) -> None:
    required = re.search(rf'"{name}(?:\[uv\])?>=([\d.]+)"', (paths.ROOT / "pyproject.toml").read_text())
    assert required is not None
    assert re.fullmatch(rf"{re.escape(required[1])}(\.0)?\+", row(name).ours)


def test_table_shows_our_minimum_only_where_it_differs() -> None:
    same = Requirement("Git", "2.30+", "2.30+", "2.43.0", True, "versions", "apt")
    other = Requirement("nox", "Make 4.0+", "2025.10+", "-", False, "sessions", "pip")
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table([same, other], "embedded"))
    lines = [line.split() for line in capture.get().splitlines() if line.strip()]
    assert lines[1] == ["tool", "guide", "ours", "found", "needed", "for", "how", "to", "get", "it"]
    assert lines[3] == ["✓", "Git", "2.30+", "2.43.0", "versions", "apt"]
    assert lines[4] == ["✗", "nox", "Make", "4.0+", "2025.10+", "-", "sessions", "pip"]
