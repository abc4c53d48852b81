"""Figures of performance tests: budgets, the table, and the evidence, in separate pytest runs."""

import json
from pathlib import Path

import pytest

from testbed import evidence, paths
from testbed.figures import Figures

MEASURED = """
import pytest

@pytest.mark.performance
def test_speed(figures):
    figures.record("rate", 1234.4, "rows/s", at_least=1000)
    figures.record("latency, p95", 0.25, "s", at_most=0.2)
    figures.plot(latencies=[0.1, 0.25])
    assert figures.missed() == {missed}
"""
MISSED = ["latency, p95: 0.250 s, budget at most 0.200 s"]


@pytest.mark.parametrize(
    ("value", "at_most", "at_least", "missed"),
    [
        (2.0, 2.0, None, False),
        (2.1, 2.0, None, True),
        (2.0, None, 2.0, False),
        (1.9, None, 2.0, True),
        (9.9, None, None, False),
    ],
)
def test_missed_names_each_figure_outside_its_budget(
    value: float, at_most: float | None, at_least: float | None, missed: bool
) -> None:
    figures = Figures("a test")
    figures.record("ratio", value, at_most=at_most, at_least=at_least)
    assert bool(figures.missed()) is missed


@pytest.mark.parametrize("missed", [MISSED, []], ids=["passing", "failing"])
@pytest.mark.parametrize("arguments", [(), ("-s",)], ids=["captured", "live"])
def test_figures_are_shown_and_saved_even_if_the_test_fails(
    pytester: pytest.Pytester,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    missed: list[str],
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setenv(evidence.SESSION, "performance")
    pytester.makepyfile(test_speed=MEASURED.format(missed=missed))
    result = pytester.runpytest_inprocess("-p", "testbed.plugin", *arguments)
    result.assert_outcomes(passed=bool(missed), failed=not missed)
    rows = [line.split() for line in result.outlines if "rows/s" in line]
    assert ["rate", "1,234", "rows/s", "at", "least", "1,000", "rows/s"] in rows
    saved = json.loads((tmp_path / "reports/evidence/performance/performance/test_speed.json").read_text())
    assert saved["test"] == "test_speed.py::test_speed"
    assert [figure["value"] for figure in saved["figures"]] == [1234.4, 0.25]
    assert [figure["at_most"] for figure in saved["figures"]] == [None, 0.2]
    assert saved["data"] == {"latencies": [0.1, 0.25]}


def test_session_name_without_nox_is_that_of_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(evidence.SESSION, raising=False)
    assert evidence.session_name() == "pytest"
