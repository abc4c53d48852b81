"""Where things lie: the checkout, and an environment's folder in it."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def state_dir(name: str) -> Path:
    """`.testenv/NAME`; ValueError for a name that cannot be a folder."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", name):
        raise ValueError(f"{name!r} cannot name an environment: use lower-case letters, digits and `-`, at most 41")
    return ROOT / ".testenv" / name


def log_dir(name: str) -> Path:
    """Where the logs of all parts lie."""
    return state_dir(name) / "logs"
