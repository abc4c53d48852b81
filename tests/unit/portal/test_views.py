"""How figures are written."""

from datetime import timedelta

import pytest

from optiinfra.portal import views
from tests.unit.portal import fake

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("dollars", "written"),
    [
        (None, views.UNKNOWN),
        (0.0, "$0"),
        (-0.4, "$0"),
        (-0.5, "$0"),
        (-0.6, f"{MINUS}$1"),
        (18_513.6, "$18,514"),
        (-18_513.6, f"{MINUS}$18,514"),
    ],
)
def test_money(dollars: float | None, written: str) -> None:
    assert views.money(dollars) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, views.UNKNOWN),
        (0.0, "0 ms"),
        (999.4, "999 ms"),
        (999.6, "1 s"),
        (7_203.4, "7.2 s"),
        (59_960.0, "60 s"),
        (1_234_000.0, "1,234 s"),
    ],
)
def test_milliseconds(value: float | None, written: str) -> None:
    assert views.milliseconds(value) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(12.04, "12.0 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (119.7, "2 min 0 s"), (125.2, "2 min 5 s")],
)
def test_took(seconds: float, written: str) -> None:
    assert views.took(fake.NOW, fake.NOW + timedelta(seconds=seconds)) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (18_514.0, "18,514"),
        (9_999.6, "10,000"),
        (7_077.0, "7,077"),
        (0.12345, "0.1235"),
        (0.00001, "0.00001"),
        (-18_514.2, "-18,514"),
        (304, "304"),
    ],
)
def test_a_noted_figure_has_no_exponent(value: float, written: str) -> None:
    assert views.details({"estimate": value}) == {"Estimate": written}
