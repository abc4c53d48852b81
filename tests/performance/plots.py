"""``python -m tests.performance.plots [FOLDER]``: draw the figures of a session's performance tests into `docs/`.

FOLDER is `reports/evidence/performance/performance` unless given. Needs the extra `docs`.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from testbed import paths
from testbed.figures import percentile

EVIDENCE = paths.ROOT / "reports" / "evidence" / "performance" / "performance"
DOCS = paths.ROOT / "docs"
OURS, COMPARED, BUDGET = "#1f6feb", "#9aa4b2", "#d1242f"


def draw_concurrent_migrations(figure: Figure, data: dict[str, Any]) -> None:
    """A bar for each of the concurrent migrations, from its start to its end."""
    axes = figure.subplots()
    spans = sorted(zip(data["started"], data["completed"], strict=True))
    axes.barh(range(len(spans)), [end - start for start, end in spans], left=[start for start, _ in spans], color=OURS)
    axes.axvline(data["one_by_one"] / 2, color=BUDGET, label="budget: half of the time one by one")
    axes.set(xlabel="seconds", ylabel="migration", yticks=[], xlim=(0, None))
    axes.legend(loc="lower right")


def draw_analysis_latency(figure: Figure, data: dict[str, Any]) -> None:
    """The latency of each analysis, in the order of the requests."""
    axes = figure.subplots()
    numbers = range(1, len(data["stored"]) + 1)
    axes.plot(numbers, data["stored"], "o", color=OURS, label="recommendations stored")
    axes.plot(numbers, data["completed"], "o", color=COMPARED, label="validated and completed")
    axes.axhline(2.0, color=BUDGET, label="budget of the stored ones, p95")
    axes.set(xlabel="analysis", ylabel="seconds after the request", ylim=(0, None), xticks=numbers[4::5])
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.92))


def draw_api_throughput(figure: Figure, data: dict[str, Any]) -> None:
    """Requests per second of each round, beside those of the bare service; and the latencies of `/health` meanwhile."""
    rates, stalls = figure.subplots(1, 2, width_ratios=(3, 2))
    for label, values in sorted(data["rounds"].items()):
        color, marker = (OURS if label.startswith("platform") else COMPARED), ("o" if "lists" in label else "s")
        rates.plot(range(1, len(values) + 1), values, marker, color=color, label=label)
    rates.set(xlabel="round", ylabel="requests/s", ylim=(0, None))
    rates.legend(loc="lower center", ncols=2)
    stalls.plot(data["health_ms"], color=OURS)
    stalls.axhline(50, color=BUDGET, label="budget")
    stalls.set(xlabel="call of /health", ylabel="milliseconds", ylim=(0, None))
    stalls.legend()


def draw_telemetry_ingestion(figure: Figure, data: dict[str, Any]) -> None:
    """The time of each batch, ingested and inserted directly; and the dashboard's queries afterwards."""
    batches, queries = figure.subplots(1, 2, width_ratios=(3, 2))
    for label, seconds, color in (
        ("platform", data["ingested"], OURS),
        ("direct insert", data["inserted"], COMPARED),
    ):
        batches.plot([1000 * each for each in seconds], color=color, label=label)
    batches.set(xlabel="batch of 5,000 samples", ylabel="milliseconds", ylim=(0, None))
    batches.legend()
    slowest = {name: 1000 * percentile(seconds, 95) for name, seconds in data["dashboard"].items()}
    queries.barh(list(slowest), list(slowest.values()), color=OURS)
    queries.axvline(500, color=BUDGET, label="budget")
    queries.set(xlabel="dashboard query, p95, milliseconds")
    queries.invert_yaxis()
    queries.legend(loc="lower right")


DRAWN: dict[str, Callable[[Figure, dict[str, Any]], None]] = {
    "concurrent_migrations": draw_concurrent_migrations,
    "analysis_latency": draw_analysis_latency,
    "api_throughput": draw_api_throughput,
    "telemetry_ingestion": draw_telemetry_ingestion,
}
"""How the data of a test module is drawn, by the module's subject."""


def draw(document: dict[str, Any], subject: str, folder: Path) -> Path:
    """Draw one test's data into `folder`; the file depends on the data only."""
    with mpl.rc_context({"svg.hashsalt": subject, "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        DRAWN[subject](figure, document["data"])
        target = folder / f"performance-{subject.replace('_', '-')}.svg"
        figure.savefig(target, metadata={"Date": None})
    return target


def main() -> None:
    """Draw every test whose figures are in the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=EVIDENCE)
    folder = parser.parse_args().folder
    files = sorted(folder.glob("test_*.json"))
    if not files:
        parser.error(f"{folder} has no figures; run `nox -s performance` first")
    for file in files:
        document = json.loads(file.read_text())
        print(draw(document, file.stem.removeprefix("test_"), DOCS))  # noqa: T201


if __name__ == "__main__":
    main()
