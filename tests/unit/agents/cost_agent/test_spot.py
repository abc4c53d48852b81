"""Prices and savings of spot instances: properties of every plan."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra.agents.cost_agent import spot
from optiinfra.clouds.price_book import PLAUSIBLE_SHARE, PriceBook, UnknownPriceError
from optiinfra.domain.hardware import INSTANCE_TYPES
from optiinfra.domain.savings import monthly

BOOK = PriceBook.load()
SOLD_ON_SPOT = [name for name in sorted(INSTANCE_TYPES) if not name.startswith("p5e.")]

types, counts, quotes = st.sampled_from(SOLD_ON_SPOT), st.integers(1, 100), st.none() | st.floats()


@given(types, quotes)
def test_spot_price_is_between_the_plausible_share_and_the_list_price(instance_type: str, quoted: float | None) -> None:
    place = ("aws", "us-east-1", instance_type)
    listed, found = BOOK.on_demand_price(*place).hourly, BOOK.spot_price(*place, quoted).hourly
    assert PLAUSIBLE_SHARE * listed <= found <= listed
    assert found in (quoted, BOOK.spot_price(*place).hourly)
    assert BOOK.hourly(*place, "spot", quoted) == found
    assert BOOK.hourly(*place, "on-demand", quoted) == listed


@given(types, counts, quotes, st.floats(0, 100))
def test_savings_are_below_the_current_cost(
    instance_type: str, count: int, quoted: float | None, correction: float
) -> None:
    plan = spot.plan(BOOK, "aws", "us-east-1", instance_type, count, quoted)
    assert 0 < plan.spot_price <= plan.ondemand_price
    assert plan.current_cost == pytest.approx(monthly(plan.ondemand_price, count))
    assert 0 <= plan.price_difference < plan.current_cost
    assert plan.allowance > 0
    assert plan.savings(correction) < plan.current_cost
    assert plan.savings() <= plan.savings(correction) or correction < 1


@given(types, counts, quotes)
def test_savings_are_proportional_to_the_instance_count(instance_type: str, count: int, quoted: float | None) -> None:
    one, many = (spot.plan(BOOK, "aws", "us-east-1", instance_type, number, quoted) for number in (1, count))
    assert many.savings() == pytest.approx(count * one.savings())


@given(types, st.floats(0.1, 1), st.floats(0.1, 1))
def test_lower_quote_never_saves_less(instance_type: str, one: float, other: float) -> None:
    listed = BOOK.on_demand_price("aws", "us-east-1", instance_type).hourly
    dear, cheap = (
        spot.plan(BOOK, "aws", "us-east-1", instance_type, 1, share * listed).savings()
        for share in sorted((one, other), reverse=True)
    )
    assert cheap >= dear - 1e-9


@given(st.text(max_size=10), st.text(max_size=10), st.text(max_size=10))
def test_unknown_price_error_names_type_provider_and_region(provider: str, region: str, instance_type: str) -> None:
    with pytest.raises(UnknownPriceError) as unknown:
        BOOK.on_demand_price(provider, region, instance_type)
    assert f"no price of {instance_type} in {provider} {region}; " in str(unknown.value)


@pytest.mark.parametrize("quoted", [0.00001, 300.0])
def test_implausible_quote_is_replaced_by_the_typical_price(quoted: float) -> None:
    plan = spot.plan(BOOK, "aws", "us-east-1", "p4de.24xlarge", 2, quoted)
    typical = BOOK.spot_price("aws", "us-east-1", "p4de.24xlarge").hourly
    assert plan.spot_price == pytest.approx(typical * (1.0 + spot.PRICE_MARGIN))
