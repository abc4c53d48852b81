"""What people see: people read stderr when stdout is one JSON document."""

import json
import sys
from typing import Any

from rich.console import Console

from testbed.health import Row

LOG_WIDTH = 160


def console(*, to_stderr: bool) -> Console:
    """A console for progress and tables."""
    stream = sys.stderr if to_stderr else sys.stdout
    # A log file has no width of its own: rows must not be broken at 80 columns there.
    return Console(file=stream, highlight=False, width=None if stream.isatty() else LOG_WIDTH)


def print_json(document: Any) -> None:
    """One document on stdout."""
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


def progress(out: Console, row: Row, seconds: float) -> None:
    """A part has become healthy."""
    out.print(f"  [green]✓[/] {row.name:<18} {row.address:<16} {row.version:<22} {seconds:4.1f} s")
