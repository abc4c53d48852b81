"""The customer's preferences decide what is recommended and approved."""

from fixtures import estates
from fixtures.estates.schema import Preferences
from tests.helpers.assertions import assert_optimization_successful
from tests.helpers.customers import ESTATES, NewCustomer


def test_low_risk_savings_below_the_limit_are_approved_automatically(new_customer: NewCustomer) -> None:
    acme = estates.load(ESTATES / "acme.yaml")
    customer = new_customer(acme.model_copy(update={"preferences": Preferences(auto_approve_below=20_000)}))

    found = customer.analyze("cost")

    assert found["vllm-prod-1"].status in ("approved", "executing")
    assert found["vllm-prod-2"].status == "rejected", "a recommendation that a validator refused is never approved"
    (started,) = customer.get(f"/customers/{customer.id}/optimizations")
    assert started["recommendation_id"] == found["vllm-prod-1"].id
    assert_optimization_successful(customer.wait_for_optimization(started["id"]))


def test_customer_without_spot_allowed_gets_no_spot_recommendation(new_customer: NewCustomer) -> None:
    acme = estates.load(ESTATES / "acme.yaml")
    customer = new_customer(acme.model_copy(update={"preferences": Preferences(spot_allowed=False)}))

    analysis = customer.wait_for_analysis(customer.start_analysis("cost"))

    assert analysis.recommendation_ids == []
    assert analysis.summary is not None
    assert "vllm-prod-1: your preferences do not allow spot instances" in analysis.summary
