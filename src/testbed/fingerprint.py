"""Fingerprint and version of the source. A session reuses a running environment only with the same fingerprint."""

import hashlib
import subprocess
import sys
from pathlib import Path

from testbed.paths import ROOT

SOURCES = ("src", "fixtures")


def source_files(root: Path) -> list[Path]:
    """Every file that the environment's processes may read, sorted."""
    found = (path for folder in SOURCES for path in (root / folder).rglob("*"))
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)


def fingerprint(root: Path = ROOT, *, backend: str, coverage: bool, fleet_speed: float) -> str:
    """A digest of source, pinned versions, Python, backend, and the settings that change behaviour."""
    digest = hashlib.sha256()
    for path in [*source_files(root), root / "constraints.txt", root / ".coveragerc"]:
        if path.is_file():
            digest.update(f"{path.relative_to(root)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update(f"{sys.version}\0{backend}\0{coverage}\0{fleet_speed}".encode())
    return digest.hexdigest()[:16]


def version(root: Path = ROOT) -> str:
    """The short commit, with `+dirty` when tracked files differ from it; `unknown` outside a git checkout."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return "unknown"
    return f"{commit}+dirty" if git("status", "--porcelain", "--untracked-files=no") else commit
