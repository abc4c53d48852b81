"""Paths of the checkout and of environments."""

import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")


def environments_dir() -> Path:
    """`.testenv`, which holds a folder and a lock file for each environment, and nothing else."""
    return ROOT / ".testenv"


def state_dir(name: str) -> Path:
    """`.testenv/NAME`; ValueError for a name that cannot be a folder."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name an environment: use lower-case letters, digits and `-`, at most 41")
    return environments_dir() / name


def lock_file(name: str) -> Path:
    """`.testenv/.NAME.lock`; ValueError for a name that cannot be a folder."""
    folder = state_dir(name)
    return folder.with_name(f".{folder.name}.lock")


def log_dir(name: str) -> Path:
    """Where the logs of all parts lie."""
    return state_dir(name) / "logs"


def digest(name: str) -> str:
    """Ten-letter digest of checkout and name, unique among the machine's checkouts."""
    return hashlib.sha256(f"{ROOT} {name}".encode()).hexdigest()[:10]
