"""`python -m tests.bench crash --runs N` or `fairness --bursts N`, on the environment that the session started."""

import argparse
import json
import os
import sys
from typing import Any

from rich.table import Table

from fixtures import estates
from testbed import consistency, guard, paths, sessions, startup
from testbed.console import console
from testbed.figures import percentile
from testbed.plugin import GIVEN
from tests.bench import fairness
from tests.bench.crash import Crashes, Score
from tests.helpers.customers import ESTATES, provisioned
from tests.helpers.migration_checks import Violations
from tests.helpers.private_platform import private_platform_over


def crash(arguments: argparse.Namespace) -> int:
    """Kill processes at random moments; returns 1 if anything was lost, duplicated or left over."""
    out = console()
    with private_platform_over(_running(arguments), f"crash-{os.getpid()}") as platform:
        crashes = Crashes(platform, arguments.seed, out.print)
        try:
            crashes.run(arguments.runs, arguments.customers)
            for one in consistency.fetch(platform.described)["dangling"]:
                reference = f"{one['store']} {one['kind']} {one['id']} -> {one['refers_to']}"
                crashes.score.violations.append(Violations(left_over=[reference]))
        finally:
            _report(crashes.score, arguments)
    return 1 if crashes.score.violations else 0


def measure_fairness(arguments: argparse.Namespace) -> int:
    """Time one customer during bursts of another one; returns 0, as the figures vary too much for a verdict."""
    estate = estates.load(ESTATES / "acme.yaml")
    with (
        private_platform_over(
            _running(arguments), f"fairness-{os.getpid()}", fairness.QUOTAS, proxied=(), coverage=False
        ) as platform,
        provisioned(platform.document, estate) as quiet,
        provisioned(platform.document, estate) as busy,
    ):
        found = fairness.measure(quiet, busy, arguments.bursts)
    made = Table("", "alone", "during bursts", "times slower", "aim")
    for what, most in fairness.MOST_SLOWER.items():
        alone, meanwhile = found.alone[what], found.meanwhile[what]
        shown = [
            f"{percentile(times, 50) * 1000:,.0f} / {percentile(times, 95) * 1000:,.0f} ms"
            for times in (alone, meanwhile)
        ]
        made.add_row(f"{what}, median / p95", *shown, f"{found.slower[what]:.1f}", f"below {most:g}")
    console().print(made)
    for number, answers in enumerate(found.answers, 1):
        console().print(f"burst {number}:", {kind: dict(counted) for kind, counted in answers.items()})
    return 0


def _running(arguments: argparse.Namespace) -> dict[str, Any]:
    """The environment that the command line names."""
    host = startup.running(arguments.environment)
    if host is None:
        raise SystemExit(f"environment {arguments.environment!r} is not running: `invoke start-test-env` starts it")
    return host.document()


def _report(score: Score, arguments: argparse.Namespace) -> None:
    """Write the figures to a file and print them."""
    out = console()
    document = {"seed": arguments.seed, "customers": arguments.customers, **score.document()}
    target = paths.ROOT / "reports" / "bench" / "crash.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(document, indent=2))
    out.print(table(score))
    for found in score.violations:
        for text in (*found.lost, *found.duplicated, *found.left_over):
            out.print(f"[red]✗[/] {text}")
    out.print(summary(document))
    out.print(f"Figures: {target.relative_to(paths.ROOT)}")


def table(score: Score) -> Table:
    """One row for each kind of process."""
    rows = score.document()["recovery_seconds"]
    recoveries = Table("killed", "times", "recovered after (median)", "at most")
    for process in sorted(rows):
        row = rows[process]
        recoveries.add_row(process, str(row["times"]), f"{row['median']:.1f} s", f"{row['longest']:.1f} s")
    return recoveries


def summary(document: dict[str, object]) -> str:
    """The counts in one line."""
    counted = {kind: document[kind] for kind in ("lost", "duplicated", "left_over")}
    violations = ", ".join(
        f"{len(found)} {kind.replace('_', ' ')}" for kind, found in counted.items() if isinstance(found, list)
    )
    return f"{document['crashes']} crashes, migrations {document['migrations']}: {violations}"


def main() -> int:
    """Run the benchmark that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    benches = parser.add_subparsers(dest="bench", required=True)
    crashes = benches.add_parser("crash", help=crash.__doc__)
    crashes.add_argument("--runs", type=int, default=20, help="number of crashes")
    crashes.add_argument("--customers", type=int, default=3, help="number of customers that migrate concurrently")
    crashes.add_argument("--seed", type=int, default=1, help="seed of the random processes and moments")
    crashes.set_defaults(run=crash)
    fair = benches.add_parser("fairness", help=measure_fairness.__doc__)
    fair.add_argument("--bursts", type=int, default=2, help="number of bursts")
    fair.set_defaults(run=measure_fairness)
    for each in (crashes, fair):
        each.add_argument("--environment", default=os.environ.get(GIVEN, "e2e"))
    arguments = parser.parse_args()
    guard.check_caller()
    with sessions.hold():
        return int(arguments.run(arguments))


if __name__ == "__main__":
    sys.exit(main())
