"""Estates of other models, sizes and prices give figures of their own; where nothing can be saved, why is said."""

import pytest

from fixtures import estates
from tests.helpers import cloud_truth
from tests.helpers.customers import ESTATES, NewCustomer


def test_other_models_and_types_are_priced_each_by_itself(new_customer: NewCustomer) -> None:
    customer = new_customer(estates.load(ESTATES / "startup.yaml"))
    estate = customer.infrastructure()
    assert sum(i.monthly_cost for i in estate.instances) == pytest.approx(cloud_truth.monthly_cost(customer.seeded))

    found = customer.analyze("cost")

    assert set(found) == {"chat", "summaries"}
    for name, recommendation in found.items():
        cost = cloud_truth.monthly_cost(customer.seeded, name)
        spot = cloud_truth.monthly_cost_as_spot(customer.seeded, name)
        # Less than the whole difference: interruptions cost something. Never more.
        assert 0.85 * (cost - spot) < recommendation.estimated_savings <= cost - spot
        assert recommendation.predicted.monthly_cost == pytest.approx(cost - recommendation.estimated_savings, abs=0.01)
        assert all(validation.approved for validation in recommendation.validations), recommendation.validations


def test_a_customer_with_nothing_to_save_is_told_why(new_customer: NewCustomer) -> None:
    customer = new_customer(estates.load(ESTATES / "settled.yaml"))

    analysis = customer.wait_for_analysis(customer.start_analysis("cost"))

    assert analysis.status == "completed"
    assert analysis.recommendation_ids == []
    assert analysis.summary is not None
    assert "triage: its owner does not allow interruptions" in analysis.summary
    assert "archive: it is on spot instances already" in analysis.summary
