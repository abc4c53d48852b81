"""Figures that performance tests measure: shown as a table, and saved with the session's evidence.

This is a pytest plugin, which `testbed.plugin` loads.
"""

import io
import json
import math
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from testbed import evidence
from testbed.fingerprint import version

SCHEMA = 1


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest of the values that at least so many percent of them do not exceed."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


@dataclass(frozen=True)
class Figure:
    """One measured value, with its budget if it has one."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def budget(self) -> str:
        """The budget as it is shown."""
        if self.at_most is not None:
            return f"at most {self._with_unit(self.at_most)}"
        return "" if self.at_least is None else f"at least {self._with_unit(self.at_least)}"

    @property
    def missed(self) -> bool:
        """Whether the value is outside of its budget."""
        above = self.at_most is not None and self.value > self.at_most
        below = self.at_least is not None and self.value < self.at_least
        return above or below

    def __str__(self) -> str:
        return f"{self.name}: {self._with_unit(self.value)}"

    def _with_unit(self, value: float) -> str:
        digits = 0 if abs(value) >= 100 else 3
        return f"{value:,.{digits}f} {self.unit}".rstrip()


@dataclass
class Figures:
    """The figures of one test, and the data of its plot."""

    test: str
    figures: list[Figure] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def record(
        self, name: str, value: float, unit: str = "", *, at_most: float | None = None, at_least: float | None = None
    ) -> None:
        """Record a figure."""
        self.figures.append(Figure(name, value, unit, at_most, at_least))

    def plot(self, **data: float | Sequence[float] | Mapping[str, Any]) -> None:
        """Save data that the test's plot shows."""
        self.data |= data

    def missed(self) -> list[str]:
        """The figures outside of their budgets."""
        return [f"{figure}, budget {figure.budget}" for figure in self.figures if figure.missed]

    def table(self) -> str:
        """The figures as text."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Column, Table

        table = Table(Column("figure"), Column("measured", justify="right"), Column("budget"), box=SIMPLE_HEAD)
        for figure in self.figures:
            name, _, measured = str(figure).rpartition(": ")
            table.add_row(name, measured, figure.budget + ("  MISSED" if figure.missed else ""))
        out = io.StringIO()
        Console(file=out, width=120, highlight=False, markup=False).print(table)
        return f"{self.test}\n{out.getvalue().rstrip()}"

    def document(self) -> dict[str, Any]:
        """The figures as they are saved."""
        return {
            "schema": SCHEMA,
            "test": self.test,
            "commit": version(),
            "cores": os.cpu_count(),
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "figures": [asdict(figure) for figure in self.figures],
            "data": self.data,
        }


_figures = pytest.StashKey[Figures]()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """The figures of a performance test; what was recorded is shown and saved even if the test fails."""
    made = request.node.stash[_figures] = Figures(request.node.nodeid)
    yield made
    folder = evidence.folder_of(evidence.session_name()) / "performance"
    folder.mkdir(exist_ok=True)
    (folder / f"{request.path.stem}.json").write_text(json.dumps(made.document(), indent=2))
    print(f"\n{made.table()}")  # noqa: T201


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Add the table to the test's report."""
    report = yield
    made = item.stash.get(_figures, None)
    if call.when == "call" and made is not None:
        report.user_properties.append(("figures", made.table()))
    return report
