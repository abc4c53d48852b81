"""Estates with other models, sizes and prices get their own figures, or the reasons why nothing can be saved."""

import pytest

from fixtures import estates
from tests.helpers import cloud_state
from tests.helpers.customers import ESTATES, NewCustomer


def test_estate_of_other_models_and_types_is_priced_per_deployment(new_customer: NewCustomer) -> None:
    customer = new_customer(estates.load(ESTATES / "startup.yaml"))
    estate = customer.infrastructure()
    shown = sum(i.monthly_cost or 0.0 for i in estate.instances)
    assert shown == pytest.approx(cloud_state.monthly_cost(customer.seeded))

    found = customer.analyze("cost")

    # The idle instance is recommended for shutdown as soon as its grace period is over, which may be before or after.
    found.pop("idle_shutdown", None)
    assert set(found) == {"chat", "summaries"}
    assert {recommendation.type for recommendation in found.values()} == {"spot_migration"}
    for name, recommendation in found.items():
        cost = cloud_state.monthly_cost(customer.seeded, name)
        spot = cloud_state.monthly_cost_as_spot(customer.seeded, name)
        # At most the price difference, and less than it, because interruptions have a cost.
        assert 0.85 * (cost - spot) < recommendation.estimated_savings <= cost - spot
        assert recommendation.predicted.monthly_cost == pytest.approx(cost - recommendation.estimated_savings, abs=0.01)
        assert all(validation.approved for validation in recommendation.validations), recommendation.validations


def test_estate_without_savings_gets_the_reasons(new_customer: NewCustomer) -> None:
    customer = new_customer(estates.load(ESTATES / "settled.yaml"))

    analysis = customer.wait_for_analysis(customer.start_analysis("cost"))

    assert analysis.status == "completed"
    assert analysis.recommendation_ids == []
    assert analysis.summary is not None
    assert "triage: its owner does not allow interruptions" in analysis.summary
    assert "archive: it is on spot instances already" in analysis.summary
