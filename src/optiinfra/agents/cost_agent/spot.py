"""What moving a deployment to spot instances saves, and what it risks. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from optiinfra.clouds.price_book import PriceBook
from optiinfra.domain.outcomes import Outcome
from optiinfra.domain.recommendation import RiskLevel
from optiinfra.domain.savings import monthly

BRIDGE_HOURS = 24.0
"""How long an on-demand instance stands in after an interruption, until spot capacity of the type is back.

An assumption of ours, on the safe side: AWS publishes how often it interrupts, not for how long a pool stays empty.
"""
OVERLAP_HOURS = 1.0
"""How long the stand-in and the spot instance that follows it are both paid for while traffic moves over."""

PRICE_MARGIN = 0.03
"""What we add to a typical spot price where the cloud quotes none: prices drift, and ours is older than today.

An assumption of ours, which measured outcomes correct.
"""

OFTEN = 0.10
"""Interruptions a month and instance above which we call them frequent: the third of Spot Advisor's five bands."""
FEW_REPLICAS = 3
"""Replicas up to which losing one takes a third of the capacity or more."""


@dataclass(frozen=True, slots=True)
class SpotPlan:
    """Prices in dollars an hour and instance; all else in dollars a month for all `count` instances."""

    count: int
    ondemand_price: float
    spot_price: float
    spot_source: str
    interruptions_per_month: float
    current_cost: float
    allowance: float

    @property
    def price_difference(self) -> float:
        """What the instances cost less, as long as nothing interrupts them."""
        return self.current_cost - monthly(self.spot_price, self.count)

    def savings(self, correction: float = 1.0) -> float:
        """What is saved: the difference in price, corrected by past outcomes, less the allowance for interruptions."""
        return min(self.price_difference * correction, self.current_cost) - self.allowance


def plan(
    book: PriceBook, provider: str, region: str, instance_type: str, count: int, quoted: float | None = None
) -> SpotPlan:
    """Price `count` instances on spot instead of on demand; UnknownPriceError when the book does not know them.

    Each interruption costs the difference between on-demand and spot for `BRIDGE_HOURS`, and the whole on-demand price
    for `OVERLAP_HOURS`. How many there are is Spot Advisor's rate times the instances.
    """
    ondemand = book.on_demand(provider, region, instance_type).hourly
    spot = book.spot(provider, region, instance_type, quoted)
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


def risk_of(replicas: int, interruptions_per_month: float) -> RiskLevel:
    """How risky spot is: high where one interruption takes everything, low where it is rare or takes little."""
    if replicas == 1:
        return "high"
    return "medium" if interruptions_per_month > OFTEN and replicas <= FEW_REPLICAS else "low"


def confidence(outcomes: Sequence[Outcome], *, latency_known: bool) -> float:
    """How sure we are, 0..1: from 0.7 towards 0.95 with every similar outcome; less where no latency was measured."""
    weight = sum(outcome.similarity for outcome in outcomes)
    return round(0.7 + 0.25 * weight / (1.0 + weight) - (0.0 if latency_known else 0.1), 3)
