"""What the verbs print, for people and for programs."""

import json
import sys
from typing import Any

from rich.console import Console

from testbed.health import Row

LOG_WIDTH = 160


def console() -> Console:
    """A console for progress and tables."""
    # A log file has no width of its own: rows must not be broken at 80 columns there.
    return Console(highlight=False, width=None if sys.stdout.isatty() else LOG_WIDTH)


def print_json(document: Any) -> None:
    """One document on stdout."""
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


def progress(out: Console, row: Row, seconds: float) -> None:
    """A part has become healthy."""
    out.print(f"  [green]✓[/] {row.name:<18} {row.address:<16} {row.version:<22} {seconds:4.1f} s")
