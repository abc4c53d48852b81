"""``python -m testbed.consistency SESSION --name ENVIRONMENT``: check references between stores and clouds.

Saves the orchestrator's report as the session's `consistency.json`. Exit code 1 if a reference dangles or the
orchestrator cannot be reached.
"""

import argparse
import json
import sys
from collections import Counter
from typing import Any

import requests
from rich import box
from rich.table import Table

from testbed import evidence, loopback, startup
from testbed.console import console
from testbed.environment import Environment, SetupError
from testbed.waiting import stretched

REPORT_SECONDS = 60.0
"""Timeout of the check, which reads every store and cloud account up to twice."""


def fetch(environment: Environment, path: str = "/admin/consistency") -> dict[str, Any]:
    """The report of `GET /admin/consistency`, or of another admin's check. SetupError when the request fails."""
    url = f"{environment.url('orchestrator')}{path}"
    headers = {"Authorization": f"Bearer {environment.credentials['admin_token']}"}
    try:
        with loopback.session() as session:
            response = session.get(url, headers=headers, timeout=stretched(REPORT_SECONDS))
            response.raise_for_status()
    except requests.RequestException as error:
        raise SetupError(f"no report of {path} from the orchestrator: {error}") from error
    document: dict[str, Any] = response.json()
    return document


def table(report: dict[str, Any]) -> Table:
    """The number of references of each kind that were checked, and that dangle."""
    dangling = Counter(one["kind"] for one in report["dangling"])
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("kind")
    for heading in ("checked", "dangling"):
        made.add_column(heading, justify="right")
    for kind in sorted({*report["checked"], *dangling}):
        made.add_row(kind, str(report["checked"].get(kind, "")), str(dangling.get(kind, "")))
    return made


def summary(report: dict[str, Any]) -> str:
    """A line for each dangling reference: its source and its target."""
    lines = [f"  {one['store']} {one['kind']} {one['id']} -> {one['refers_to']}" for one in report["dangling"]]
    return "\n".join([f"dangling references: {len(lines)}", *lines])


def main() -> int:
    """Run the check and save its report; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("session")
    parser.add_argument("--name", required=True)
    arguments = parser.parse_args()
    target = evidence.folder_of(arguments.session) / "consistency.json"
    target.unlink(missing_ok=True)
    try:
        report = fetch(startup.needed(arguments.name))
    except SetupError as error:
        print(f"consistency: {error}", file=sys.stderr)  # noqa: T201
        return 1
    target.write_text(json.dumps(report, indent=2))
    console().print(table(report))
    if not report["consistent"]:
        print(summary(report), file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
