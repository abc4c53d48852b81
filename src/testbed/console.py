"""Output of the commands: tables and progress for people, JSON for programs."""

import json
import sys
from typing import Any

from rich.console import Console

from testbed.health import Row

LOG_WIDTH = 160


def console() -> Console:
    """A console for progress and tables."""
    # Without a terminal rich assumes 80 columns, which would wrap the rows of log files.
    return Console(highlight=False, width=None if sys.stdout.isatty() else LOG_WIDTH)


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


def progress(out: Console, row: Row, seconds: float) -> None:
    """Print that a part is healthy, `seconds` after the start."""
    out.print(f"  [green]✓[/] {row.name:<18} {row.address:<16} {row.version:<22} {seconds:4.1f} s")
