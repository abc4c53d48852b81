"""Approvals: invalid ones are refused with the reason, and concurrent ones take effect once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from fixtures import estates
from optiinfra.domain.optimization import STEPS
from tests.helpers.accounts import PASSWORD
from tests.helpers.callers import all_callers
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, NewCustomer
from tests.helpers.database import update_one

APPROVABLE, REFUSED = "vllm-prod-1", "vllm-prod-2"
CONCURRENT = 100


def problem_detail(answer: httpx.Response, status: int, kind: str) -> str:
    """The detail of a problem of this status and kind."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["type"] == f"urn:optiinfra:problem:{kind}"
    assert body["trace_id"]
    return str(body["detail"])


def concurrently(calls: list[Callable[[], httpx.Response]]) -> list[httpx.Response]:
    """The responses to calls that run at the same time, in the order of the calls."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return [answer.result() for answer in [threads.submit(call) for call in calls]]


def client_for_many_calls(customer: Customer) -> httpx.Client:
    """A client of the customer with a connection for each concurrent call."""
    limits = httpx.Limits(max_connections=2 * CONCURRENT)
    return httpx.Client(base_url=customer.http.base_url, headers=customer.http.headers, timeout=60, limits=limits)


def test_approval_of_an_unknown_refused_or_expired_recommendation_is_refused_with_the_reason(
    acme: Customer, new_customer: NewCustomer
) -> None:
    found = acme.analyze("cost")
    approvable, refused = found[APPROVABLE].id, found[REFUSED].id
    other = new_customer(estates.load(ESTATES / "settled.yaml"))

    def approve(recommendation_id: str, customer: Customer = acme) -> httpx.Response:
        return customer.http.post(f"/recommendations/{recommendation_id}/approve")

    unknown = problem_detail(approve("rec_000000000000000000000000"), 404, "not_found")
    assert problem_detail(approve(approvable, other), 404, "not_found") == unknown == "no such recommendation"
    for malformed in ("rec", "' OR 1=1", "%00", "a" * 5000, "%F0%9F%92%B8"):
        problem_detail(approve(malformed), 404, "not_found")
    assert "the performance agent refused it: " in problem_detail(approve(refused), 409, "refused_by_validator")

    past = "UPDATE recommendations SET expires_at = now() - interval '1 second' WHERE id = %s"
    update_one(acme.environment, past, approvable)
    assert f"{approvable} is expired, not pending" in problem_detail(approve(approvable), 409, "not_pending")
    assert acme.get(f"/customers/{acme.id}/optimizations") == []


def test_approval_of_a_rejected_recommendation_is_refused(acme: Customer) -> None:
    recommendation = acme.analyze("cost")[APPROVABLE].id
    acme.post(f"/recommendations/{recommendation}/reject", {"reason": "not this quarter"})

    answer = acme.http.post(f"/recommendations/{recommendation}/approve")

    assert f"{recommendation} is rejected, not pending" in problem_detail(answer, 409, "not_pending")
    assert acme.get(f"/customers/{acme.id}/optimizations") == []


def test_approvals_at_the_same_time_start_one_optimization(acme: Customer) -> None:
    recommendation = acme.analyze("cost")[APPROVABLE].id

    with client_for_many_calls(acme) as http:
        approvals: list[Callable[[], httpx.Response]] = [
            lambda: http.post(f"/recommendations/{recommendation}/approve")
        ] * CONCURRENT
        others: list[Callable[[], httpx.Response]] = [lambda: http.get(f"/customers/{acme.id}/infrastructure")] * 20
        answers = concurrently([*approvals, *others])

    assert {answer.status_code for answer in answers} == {200}
    (optimization_id,) = {answer.json()["optimization_id"] for answer in answers[:CONCURRENT]}
    optimization = acme.wait_for_optimization(optimization_id)
    assert [each["id"] for each in acme.get(f"/customers/{acme.id}/optimizations")] == [optimization_id]
    assert optimization.status == "completed", optimization.result
    assert [(step.name, step.attempt) for step in optimization.execution_steps] == [
        (step, 1) for step in STEPS["spot_migration"]
    ]
    types = [event["event_type"] for event in acme.get(f"/customers/{acme.id}/events", limit=1000)]
    assert types.count("recommendation_approved") == types.count("optimization_started") == 1


def test_approval_and_rejection_at_the_same_time_only_one_takes_effect(acme: Customer) -> None:
    recommendation = acme.analyze("cost")[APPROVABLE].id
    path = f"/recommendations/{recommendation}"

    with client_for_many_calls(acme) as http:
        approve: Callable[[], httpx.Response] = lambda: http.post(f"{path}/approve")  # noqa: E731
        reject: Callable[[], httpx.Response] = lambda: http.post(f"{path}/reject", json={"reason": "no"})  # noqa: E731
        answers = concurrently([approve, reject] * 10)

    approved = [answer.status_code for answer in answers[0::2]]
    rejected = [answer.status_code for answer in answers[1::2]]
    assert (approved, sorted(rejected)) in (([200] * 10, [409] * 10), ([409] * 10, [200] + [409] * 9))
    types = [event["event_type"] for event in acme.get(f"/customers/{acme.id}/events", limit=1000)]
    assert types.count("recommendation_approved") + types.count("recommendation_rejected") == 1
    optimizations = acme.get(f"/customers/{acme.id}/optimizations")
    assert len(optimizations) == types.count("recommendation_approved")
    for optimization in optimizations:
        acme.wait_for_optimization(optimization["id"])


def test_sign_ups_at_the_same_time_with_one_email_create_one_customer(environment: dict[str, Any]) -> None:
    with all_callers(environment) as callers:
        email = f"{callers['user'].ids['customer_id']}@example.com"
        body = {"email": email, "company_name": "Once", "password": PASSWORD}
        limits = httpx.Limits(max_connections=CONCURRENT)
        with httpx.Client(base_url=environment["urls"]["orchestrator"], timeout=60, limits=limits) as http:
            signups: list[Callable[[], httpx.Response]] = [lambda: http.post("/auth/signup", json=body)] * CONCURRENT
            answers = concurrently(signups)
            made = [answer.json()["customer_id"] for answer in answers if answer.status_code == 201]
            for customer_id in made:
                http.delete(f"/customers/{customer_id}", headers=callers["admin"].headers).raise_for_status()

    assert len(made) == 1
    refused = [answer for answer in answers if answer.status_code != 201]
    assert {problem_detail(answer, 409, "email_taken") for answer in refused} == {
        "this e-mail address has an account already: sign in instead"
    }
