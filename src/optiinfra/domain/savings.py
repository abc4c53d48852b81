"""Money: US dollars, months of 730 hours."""

from collections.abc import Iterable
from typing import TypedDict

HOURS_PER_MONTH = 730


class ComparedCosts(TypedDict):
    """Dollars a month before and after a change; None where the cost after it is unknown."""

    cost_before: float
    cost_after: float | None
    actual_savings: float | None
    reduction_percent: float | None


def monthly(hourly_price: float, count: int = 1) -> float:
    """Cost of `count` instances at `hourly_price` dollars an hour, in dollars a month."""
    return hourly_price * count * HOURS_PER_MONTH


def reduction_percent(before: float, after: float) -> float:
    """How much cheaper `after` is than `before`, in percent of `before` (negative: more expensive)."""
    if before <= 0:
        raise ValueError(f"cost before must be above 0, got {before}")
    return (before - after) / before * 100.0


def compare(before: float, after: float | None) -> ComparedCosts:
    """What a change saved, to the cent."""
    percent = reduction_percent(before, after) if before and after is not None else None
    return ComparedCosts(
        cost_before=before,
        cost_after=after,
        actual_savings=None if after is None else round(before - after, 2),
        reduction_percent=None if percent is None else round(percent, 2),
    )


def total(costs: Iterable[float | None]) -> float:
    """Sum of the known monthly costs, rounded to cents: the result does not depend on the order."""
    return round(sum(cost for cost in costs if cost is not None), 2)
