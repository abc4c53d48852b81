"""Formatting of figures."""

import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
def test_duration(seconds: float, written: str) -> None:
    assert views.duration(fake.NOW, fake.NOW + timedelta(seconds=seconds)) == written


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
def test_details_figure_has_no_exponent(value: float, written: str) -> None:
    assert views.details({"estimate": value}) == {"Estimate": written}


figures = st.floats(-1e15, 1e15)


@given(figures)
def test_details_any_figure_can_be_parsed_back(value: float) -> None:
    (written,) = views.details({"estimate": value}).values()
    assert re.fullmatch(r"-?\d{1,3}(,\d{3})*(\.\d+)?", written)
    assert float(written.replace(",", "")) == pytest.approx(value, rel=1e-3, abs=0.5 if abs(value) >= 1e4 else 0)


@given(figures)
def test_money_any_amount_has_one_sign_and_no_cents(value: float) -> None:
    written = views.money(value)
    assert re.fullmatch(rf"{MINUS}?\$\d{{1,3}}(,\d{{3}})*", written)
    assert written != f"{MINUS}$0"
    assert abs(float(re.sub(r"[^\d]", "", written)) - abs(value)) <= 0.5


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_milliseconds_is_monotonic(one: float, other: float) -> None:
    less, more = (_seconds(views.milliseconds(value)) for value in sorted((one, other)))
    assert less <= more


def _seconds(written: str) -> float:
    number, unit = written.replace(",", "").split()
    return float(number) * (1.0 if unit == "s" else 0.001)


@given(st.floats(0, 1e7))
def test_duration_has_less_than_sixty_seconds_besides_minutes(seconds: float) -> None:
    written = views.duration(fake.NOW, fake.NOW + timedelta(seconds=seconds))
    minutes, _, rest = written.rpartition("min")
    shown = 60 * int(minutes or 0) + float(rest.removesuffix(" s"))
    assert float(rest.removesuffix(" s")) < 60
    assert shown == pytest.approx(seconds, abs=0.51)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=5), anything, max_size=5))
def test_details_any_json_can_be_shown(detail: dict[str, Any]) -> None:
    shown = views.details(detail)
    assert len(shown) <= len(detail)
    assert all(isinstance(line, str) for line in shown.values())
