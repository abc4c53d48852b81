"""Approving: what may not be is refused with the reason, and however many approve at once, it is done once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from fixtures import estates
from optiinfra.domain.optimization import STEPS
from tests.helpers.callers import all_callers
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, NewCustomer
from tests.helpers.database import update_one

APPROVABLE, REFUSED = "vllm-prod-1", "vllm-prod-2"
AT_ONCE = 100


def refusal(answer: httpx.Response, status: int, kind: str) -> str:
    """The detail of a problem of that status and kind."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["type"] == f"urn:optiinfra:problem:{kind}"
    assert body["trace_id"]
    return str(body["detail"])


def at_once(calls: list[Callable[[], httpx.Response]]) -> list[httpx.Response]:
    """The answers to calls that are all under way at the same time, in their order."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return [answer.result() for answer in [threads.submit(call) for call in calls]]


def many(customer: Customer) -> httpx.Client:
    """The customer's own client, with a connection for each of many calls."""
    limits = httpx.Limits(max_connections=2 * AT_ONCE)
    return httpx.Client(base_url=customer.http.base_url, headers=customer.http.headers, timeout=60, limits=limits)


def test_what_may_not_be_approved_is_refused_by_name(acme: Customer, new_customer: NewCustomer) -> None:
    found = acme.analyze("cost")
    approvable, refused = found[APPROVABLE].id, found[REFUSED].id
    other = new_customer(estates.load(ESTATES / "settled.yaml"))

    def approve(recommendation_id: str, customer: Customer = acme) -> httpx.Response:
        return customer.http.post(f"/recommendations/{recommendation_id}/approve")

    unknown = refusal(approve("rec_000000000000000000000000"), 404, "not_found")
    assert refusal(approve(approvable, other), 404, "not_found") == unknown == "no such recommendation"
    for malformed in ("rec", "' OR 1=1", "%00", "a" * 5000, "%F0%9F%92%B8"):
        refusal(approve(malformed), 404, "not_found")
    assert "the performance agent refused it: " in refusal(approve(refused), 409, "refused_by_validator")

    past = "UPDATE recommendations SET expires_at = now() - interval '1 second' WHERE id = %s"
    update_one(acme.environment, past, approvable)
    assert f"{approvable} is expired, not pending" in refusal(approve(approvable), 409, "not_pending")
    assert acme.get(f"/customers/{acme.id}/optimizations") == []


def test_what_was_rejected_stays_rejected(acme: Customer) -> None:
    recommendation = acme.analyze("cost")[APPROVABLE].id
    acme.post(f"/recommendations/{recommendation}/reject", {"reason": "not this quarter"})

    answer = acme.http.post(f"/recommendations/{recommendation}/approve")

    assert f"{recommendation} is rejected, not pending" in refusal(answer, 409, "not_pending")
    assert acme.get(f"/customers/{acme.id}/optimizations") == []


def test_a_hundred_approvals_at_once_are_one(acme: Customer) -> None:
    recommendation = acme.analyze("cost")[APPROVABLE].id

    with many(acme) as http:
        approvals: list[Callable[[], httpx.Response]] = [
            lambda: http.post(f"/recommendations/{recommendation}/approve")
        ] * AT_ONCE
        others: list[Callable[[], httpx.Response]] = [lambda: http.get(f"/customers/{acme.id}/infrastructure")] * 20
        answers = at_once([*approvals, *others])

    assert {answer.status_code for answer in answers} == {200}
    (optimization_id,) = {answer.json()["optimization_id"] for answer in answers[:AT_ONCE]}
    optimization = acme.wait_for_optimization(optimization_id)
    assert [each["id"] for each in acme.get(f"/customers/{acme.id}/optimizations")] == [optimization_id]
    assert optimization.status == "completed", optimization.result
    assert [(step.name, step.attempt) for step in optimization.execution_steps] == [
        (step, 1) for step in STEPS["spot_migration"]
    ]
    types = [event["event_type"] for event in acme.get(f"/customers/{acme.id}/events", limit=1000)]
    assert types.count("recommendation_approved") == types.count("optimization_started") == 1


def test_of_an_approval_and_a_rejection_one_wins(acme: Customer) -> None:
    recommendation = acme.analyze("cost")[APPROVABLE].id
    path = f"/recommendations/{recommendation}"

    with many(acme) as http:
        approve: Callable[[], httpx.Response] = lambda: http.post(f"{path}/approve")  # noqa: E731
        reject: Callable[[], httpx.Response] = lambda: http.post(f"{path}/reject", json={"reason": "no"})  # noqa: E731
        answers = at_once([approve, reject] * 10)

    approved = [answer.status_code for answer in answers[0::2]]
    rejected = [answer.status_code for answer in answers[1::2]]
    assert (approved, sorted(rejected)) in (([200] * 10, [409] * 10), ([409] * 10, [200] + [409] * 9))
    types = [event["event_type"] for event in acme.get(f"/customers/{acme.id}/events", limit=1000)]
    assert types.count("recommendation_approved") + types.count("recommendation_rejected") == 1
    optimizations = acme.get(f"/customers/{acme.id}/optimizations")
    assert len(optimizations) == types.count("recommendation_approved")
    for optimization in optimizations:
        acme.wait_for_optimization(optimization["id"])


def test_of_a_hundred_sign_ups_with_one_address_one_succeeds(environment: dict[str, Any]) -> None:
    with all_callers(environment) as callers:
        email = f"{callers['user'].ids['customer_id']}@example.com"
        body = {"email": email, "company_name": "Once", "password": "once and only once"}
        limits = httpx.Limits(max_connections=AT_ONCE)
        with httpx.Client(base_url=environment["urls"]["orchestrator"], timeout=60, limits=limits) as http:
            signups: list[Callable[[], httpx.Response]] = [lambda: http.post("/auth/signup", json=body)] * AT_ONCE
            answers = at_once(signups)
            made = [answer.json()["customer_id"] for answer in answers if answer.status_code == 201]
            for customer_id in made:
                http.delete(f"/customers/{customer_id}", headers=callers["admin"].headers).raise_for_status()

    assert len(made) == 1
    refused = [answer for answer in answers if answer.status_code != 201]
    assert {refusal(answer, 409, "email_taken") for answer in refused} == {
        f"{email} has an account already: sign in instead"
    }
