"""Savings of running a deployment on spot instances. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

from optiinfra.clouds.price_book import PriceBook
from optiinfra.domain.outcomes import Outcome
from optiinfra.domain.savings import monthly

BRIDGE_HOURS = 24.0
"""How long an on-demand replacement runs after an interruption, until spot capacity of the type is available again.

A conservative assumption: AWS publishes how often it interrupts, but not for how long a pool stays empty.
"""
OVERLAP_HOURS = 1.0
"""How long the replacement and the spot instance that follows it are both paid for while traffic moves."""

PRICE_MARGIN = 0.03
"""Share added to a typical spot price where the cloud quotes none, because the price book's prices are not of today.

An assumption that measured outcomes correct.
"""


@dataclass(frozen=True, slots=True)
class SpotPlan:
    """Prices in dollars per hour and instance; other amounts in dollars per month for all `count` instances."""

    count: int
    ondemand_price: float
    spot_price: float
    spot_source: str
    interruptions_per_month: float
    current_cost: float
    allowance: float

    @property
    def price_difference(self) -> float:
        """Savings per month if no instance is interrupted."""
        return self.current_cost - monthly(self.spot_price, self.count)

    def savings(self, correction: float = 1.0) -> float:
        """Expected savings: the price difference, corrected by past outcomes, minus the allowance for interruptions."""
        return min(self.price_difference * correction, self.current_cost) - self.allowance


def plan(
    book: PriceBook, provider: str, region: str, instance_type: str, count: int, quoted: float | None = None
) -> SpotPlan:
    """Price `count` instances on spot instead of on demand; UnknownPriceError if the book does not know the type.

    Each interruption costs the difference between on-demand and spot for `BRIDGE_HOURS`, and the full on-demand price
    for `OVERLAP_HOURS`. Their expected number is Spot Advisor's rate times the number of instances.
    """
    ondemand = book.on_demand_price(provider, region, instance_type).hourly
    spot = book.spot_price(provider, region, instance_type, quoted)
    price = spot.hourly if spot.hourly == quoted else min(spot.hourly * (1.0 + PRICE_MARGIN), ondemand)
    rate = book.interruptions_per_month(provider, region, instance_type)
    each = BRIDGE_HOURS * (ondemand - price) + OVERLAP_HOURS * ondemand
    return SpotPlan(
        count=count,
        ondemand_price=ondemand,
        spot_price=price,
        spot_source=spot.source,
        interruptions_per_month=rate,
        current_cost=monthly(ondemand, count),
        allowance=rate * count * each,
    )


def confidence(outcomes: Sequence[Outcome], *, latency_known: bool) -> float:
    """Confidence 0..1: from 0.7 towards 0.95 with each similar outcome, minus 0.1 if no latency was measured."""
    weight = sum(outcome.similarity for outcome in outcomes)
    return round(0.7 + 0.25 * weight / (1.0 + weight) - (0.0 if latency_known else 0.1), 3)
