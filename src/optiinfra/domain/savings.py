"""Money: US dollars, months of 730 hours."""

from collections.abc import Iterable

HOURS_PER_MONTH = 730


def monthly(hourly_price: float, count: int = 1) -> float:
    """Cost of `count` instances at `hourly_price` dollars an hour, in dollars a month."""
    return hourly_price * count * HOURS_PER_MONTH


def reduction_percent(before: float, after: float) -> float:
    """How much cheaper `after` is than `before`, in percent of `before` (negative: more expensive)."""
    if before <= 0:
        raise ValueError(f"cost before must be above 0, got {before}")
    return (before - after) / before * 100.0


def total(costs: Iterable[float]) -> float:
    """Sum of monthly costs, rounded to cents: the result does not depend on the order."""
    return round(sum(costs), 2)
