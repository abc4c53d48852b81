"""``python -m testbed.consistency SESSION --name ENVIRONMENT``: do the environment's stores and clouds agree?

Asks the orchestrator, keeps the answer as the session's ``consistency.json``, and exits 1 if a reference dangles or
nobody answered.
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

ANSWER_SECONDS = 60.0
"""Every store and cloud account is read, twice where something seems to dangle."""


def fetch(environment: Environment) -> dict[str, Any]:
    """The answer of ``GET /admin/consistency``; SetupError when there is none."""
    url = f"{environment.url('orchestrator')}/admin/consistency"
    headers = {"Authorization": f"Bearer {environment.credentials['admin_token']}"}
    try:
        with loopback.session() as session:
            answer = session.get(url, headers=headers, timeout=stretched(ANSWER_SECONDS))
            answer.raise_for_status()
    except requests.RequestException as error:
        raise SetupError(f"the orchestrator could not be asked: {error}") from error
    document: dict[str, Any] = answer.json()
    return document


def table(answer: dict[str, Any]) -> Table:
    """For people: how many references of each kind were looked at, and how many dangle."""
    dangling = Counter(one["kind"] for one in answer["dangling"])
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("kind")
    for heading in ("looked at", "dangling"):
        made.add_column(heading, justify="right")
    for kind in sorted({*answer["checked"], *dangling}):
        made.add_row(kind, str(answer["checked"].get(kind, "")), str(dangling.get(kind, "")))
    return made


def summary(answer: dict[str, Any]) -> str:
    """What dangles, a line each: what refers to what."""
    lines = [f"  {one['store']} {one['kind']} {one['id']} -> {one['refers_to']}" for one in answer["dangling"]]
    return "\n".join([f"dangling references: {len(lines)}", *lines])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("session")
    parser.add_argument("--name", required=True)
    arguments = parser.parse_args()
    target = evidence.folder_of(arguments.session) / "consistency.json"
    target.unlink(missing_ok=True)
    try:
        answer = fetch(startup.needed(arguments.name))
    except SetupError as error:
        print(f"consistency: {error}", file=sys.stderr)  # noqa: T201
        return 1
    target.write_text(json.dumps(answer, indent=2))
    console().print(table(answer))
    if not answer["consistent"]:
        print(summary(answer), file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
