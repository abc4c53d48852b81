"""`invoke verify-prerequisites`: what the machine needs, what it has, and how to get the rest."""

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import psutil
from rich import box
from rich.markup import escape
from rich.table import Table

from testbed import chromium, paths
from testbed.environment import Environment, is_free
from testbed.parts import PARTS
from testbed.startup import holder

GIGABYTE = 10**9
BACKENDS = ("embedded", "compose")
SYSTEM_PACKAGES = "your system's package manager"


@dataclass(frozen=True)
class Resources:
    """Total memory and free disk space in GB."""

    memory: float
    disk: float


GUIDE = Resources(memory=8, disk=20)
# Embedded, measured: a started environment uses 1.1 GB of memory; virtualenv, data and logs take 1.7 GB.
NEEDED = {"embedded": Resources(memory=2, disk=3), "compose": GUIDE}


@dataclass(frozen=True)
class Requirement:
    """One row: the guide's minimum and ours, what was found, and whether that suffices for the `backends`."""

    name: str
    guide: str
    ours: str
    found: str
    ok: bool
    purpose: str
    how: str
    backends: tuple[str, ...] = BACKENDS


def parse_version(text: str) -> tuple[int, ...]:
    """The first dotted number in a text: (2, 30, 1) in `git version 2.30.1`; empty when there is none."""
    match = re.search(r"\d+(\.\d+)+", text)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def _versioned(
    name: str,
    found: str,
    guide: str,
    purpose: str,
    how: str,
    *,
    ours: str | None = None,
    backends: tuple[str, ...] = BACKENDS,
) -> Requirement:
    """A row that compares versions with our minimum, which is the guide's unless given."""
    version_found = parse_version(found)
    ok = bool(version_found) and version_found >= parse_version(ours or guide)
    shown = ".".join(map(str, version_found)) or "-"
    return Requirement(name, f"{guide}+", f"{ours or guide}+", shown, ok, purpose, how, backends)


def output_of(*command: str) -> str:
    """What a command prints; empty when it is missing or fails."""
    if not shutil.which(command[0]):
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def _installed(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _tools() -> list[Requirement]:
    pip = "pip install -r requirements-test.txt"
    docker = "https://docs.docker.com/engine/install"
    compose = ("compose",)
    git = output_of("git", "--version")
    docker_found, compose_found = output_of("docker", "--version"), output_of("docker", "compose", "version")
    return [
        _versioned("Docker", docker_found, "20.10", "containers", docker, backends=compose),
        _versioned("Docker Compose", compose_found, "2.0", "orchestration", docker, backends=compose),
        _versioned("Python", platform.python_version(), "3.11", "everything", SYSTEM_PACKAGES),
        _versioned("pytest", _installed("pytest"), "7.0", "tests", pip, ours="9.0"),
        _versioned("Git", git, "2.30", "versions, evidence", SYSTEM_PACKAGES),
        _versioned("nox", _installed("nox"), "Make 4.0", "test sessions", pip, ours="2025.10"),
        _versioned("invoke", _installed("invoke"), "Make 4.0", "the environment's commands", pip, ours="3.0"),
    ]


def _chromium() -> Requirement:
    """Any version will do; whether it starts is checked by the sessions that use it."""
    try:
        program = str(chromium.executable())
    except chromium.ChromiumError:
        program = ""
    found = output_of(program, "--version").strip() if program else ""
    how = "apt-get install chromium, or playwright install --with-deps chromium"
    return Requirement("Chromium", "-", "-", found or "-", bool(found), "tests of the portal's pages", how)


def _resources(backend: str) -> list[Requirement]:
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(paths.ROOT)
    needed = NEEDED[backend]
    total, available, free = memory.total / GIGABYTE, memory.available / GIGABYTE, disk.free / GIGABYTE
    return [
        Requirement(
            "memory",
            f"{GUIDE.memory:g} GB",
            f"{needed.memory:g} GB",
            f"{total:.1f} GB in total ({available:.1f} GB available)",
            total >= needed.memory,
            "the environment",
            "a larger machine",
        ),
        Requirement(
            "disk",
            f"{GUIDE.disk:g} GB",
            f"{needed.disk:g} GB",
            f"{free:.1f} GB free",
            free >= needed.disk,
            "packages, data, logs",
            "delete what is not needed",
        ),
    ]


def _ports(running: Environment | None) -> Requirement:
    own = set(running.ports.values()) if running else set()
    fixed = [(part.name, part.port) for part in PARTS if part.port is not None]
    taken = [(name, port) for name, port in fixed if port not in own and not is_free(port)]
    found = "; ".join(f"{name} {port}: {holder(port)}" for name, port in taken) or "all free"
    needed = f"{len(fixed)} free"
    how = "stop the process, or set OPTIINFRA_<NAME>_PORT"
    return Requirement("ports", needed, needed, found, not taken, "the default environment", how)


def requirements(backend: str, running: Environment | None) -> list[Requirement]:
    """Every requirement, those of the other backend included. Ports of `running` count as free."""
    return [*_tools(), _chromium(), *_resources(backend), _ports(running)]


def missing(rows: list[Requirement], backend: str) -> list[Requirement]:
    """The rows that the backend needs and that are not met."""
    return [row for row in rows if backend in row.backends and not row.ok]


def table(rows: list[Requirement], backend: str) -> Table:
    """The rows as a table; our minimum is shown where it differs from the guide's."""
    made = Table(
        title=f"prerequisites of the {backend} backend", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for heading in ("", "tool", "guide", "ours", "found", "needed for", "how to get it"):
        made.add_column(heading)
    for row in rows:
        needed = backend in row.backends
        mark = "[green]✓[/]" if row.ok else ("[red]✗[/]" if needed else "-")
        ours = "" if row.ours == row.guide else row.ours
        purpose = row.purpose if needed else f"{row.purpose} ({' and '.join(row.backends)} only)"
        made.add_row(mark, row.name, row.guide, ours, escape(row.found), purpose, escape(row.how))
    return made
