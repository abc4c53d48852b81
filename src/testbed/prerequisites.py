"""verify-prerequisites: what the machine needs, what it has, and how to get the rest."""

import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import psutil
from rich import box
from rich.markup import escape
from rich.table import Table

from testbed import paths
from testbed.environment import Environment, is_free
from testbed.parts import PARTS
from testbed.startup import holder

GIGABYTE = 1024**3
# Memory and disk in GB; the embedded figures are measured: everything started, with its data and the virtualenv.
NEEDS = {"embedded": (2.0, 3.0), "compose": (8.0, 20.0)}


@dataclass(frozen=True)
class Requirement:
    """A row: ``backends`` are those that need it, ``ok`` whether what was found suffices."""

    name: str
    needed: str
    found: str
    ok: bool
    purpose: str
    how: str
    backends: tuple[str, ...] = ("embedded", "compose")


def parse_version(text: str) -> tuple[int, ...]:
    """The first dotted number in a text: (2, 30, 1) in `git version 2.30.1`; empty when there is none."""
    match = re.search(r"\d+(\.\d+)+", text)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def _tool(name: str, command: list[str], needed: str, purpose: str, how: str, backends: tuple[str, ...]) -> Requirement:
    found = ""
    if shutil.which(command[0]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = ".".join(map(str, parse_version(done.stdout))) if done.returncode == 0 else ""
    ok = bool(found) and parse_version(found) >= parse_version(needed)
    return Requirement(name, f"{needed}+", found or "-", ok, purpose, how, backends)


def _package(name: str, needed: str, purpose: str) -> Requirement:
    try:
        found = version(name)
    except PackageNotFoundError:
        found = ""
    ok = bool(found) and parse_version(found) >= parse_version(needed)
    how = "pip install -e '.[dev]' -c constraints.txt"
    return Requirement(name, f"{needed}+", found or "-", ok, purpose, how)


def _amount(name: str, needed: float, found: float, purpose: str, how: str, backend: str) -> Requirement:
    return Requirement(name, f"{needed:g} GB", f"{found:.1f} GB", found >= needed, purpose, how, (backend,))


def _ports(running: Environment | None) -> Requirement:
    own = set(running.ports.values()) if running else set()
    taken = [(part, part.port) for part in PARTS if part.port and part.port not in own and not is_free(part.port)]
    found = "; ".join(f"{part.name} {port}: {holder(port)}" for part, port in taken)
    count = sum(1 for part in PARTS if part.port)
    how = "stop the process, or set OPTIINFRA_<NAME>_PORT"
    return Requirement("free ports", f"{count} free", found or "all free", not taken, "the default environment", how)


def requirements(backend: str, running: Environment | None) -> list[Requirement]:
    """Every requirement; those of other backends are shown but not needed; ``running``'s ports count as free."""
    compose = ("compose",)
    memory, disk = NEEDS[backend]
    return [
        Requirement(
            "Python",
            "3.11+",
            platform.python_version(),
            sys.version_info >= (3, 11),
            "everything",
            "your system's package manager, or pyenv",
        ),
        _tool(
            "Git",
            ["git", "--version"],
            "2.30",
            "versions, evidence",
            "your system's package manager",
            ("embedded", "compose"),
        ),
        _package("pytest", "7.0", "tests"),
        _package("nox", "2025.10", "sessions"),
        _package("invoke", "2.0", "the environment's verbs"),
        _tool(
            "Docker", ["docker", "--version"], "20.10", "the compose backend", "docs.docker.com/engine/install", compose
        ),
        _tool(
            "Compose",
            ["docker", "compose", "version"],
            "2.0",
            "the compose backend",
            "docs.docker.com/compose/install",
            compose,
        ),
        _amount(
            "memory", memory, psutil.virtual_memory().available / GIGABYTE, "the environment", "close programs", backend
        ),
        _amount(
            "disk", disk, shutil.disk_usage(paths.ROOT).free / GIGABYTE, "packages, data, logs", "free space", backend
        ),
        _ports(running),
    ]


def missing(rows: list[Requirement], backend: str) -> list[Requirement]:
    """The rows that the backend needs and that are not met."""
    return [row for row in rows if backend in row.backends and not row.ok]


def table(rows: list[Requirement], backend: str) -> Table:
    """The rows for people."""
    made = Table(
        title=f"prerequisites of the {backend} backend", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for heading in ("", "tool", "needed", "found", "for", "how to get it"):
        made.add_column(heading)
    for row in rows:
        needed = backend in row.backends
        mark = "[green]✓[/]" if row.ok else ("[red]✗[/]" if needed else "-")
        purpose = row.purpose if needed else f"{row.purpose} only"
        made.add_row(mark, row.name, row.needed, escape(row.found), purpose, "" if row.ok else escape(row.how))
    return made
