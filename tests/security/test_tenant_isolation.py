"""Tenant isolation: another customer's ids are unknown ids, and another customer's role leads nowhere."""

import re
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from optiinfra.domain.optimization import FINAL
from testbed.waiting import stretched
from tests.helpers import cloud_state
from tests.helpers.callers import Caller, bearer, problem
from tests.helpers.customer import Customer
from tests.helpers.live import connect_live, receive
from tests.helpers.routes import ONBOARD, TENANT_ROUTES
from tests.helpers.runtime import connected_runtime, customer_without_fleet, deployment
from tests.helpers.seeds import seeded
from tests.helpers.tenants import (
    TYPE,
    Tenant,
    account_with_role,
    credentials_of,
    discovered,
    external_id_of,
    onboard_body,
    tenant,
)

pytestmark = [pytest.mark.security, pytest.mark.slow]

OF_NO_TENANT = {"POST /orchestrator/agents/{agent_id}/heartbeat", "DELETE /orchestrator/agents/{agent_id}"}
QUERY = {"metric_type": "monthly_cost", "wait": "0"}

Answer = tuple[int, dict[str, Any]]


def unknown_like(ids: Mapping[str, str]) -> dict[str, str]:
    """Ids that nothing has, of the same form."""
    return {name: f"{value.partition('_')[0]}_{uuid.uuid4().hex[:24]}" for name, value in ids.items()}


def send(http: httpx.Client, route: str, ids: Mapping[str, str], token: str, body: Any = None) -> Answer:
    """Status and body of an answer, without its trace id."""
    method, path = route.split(" ")
    query = QUERY if method == "GET" else None
    answer = http.request(method, path.format_map(ids), params=query, json=body, headers=bearer(token))
    shown = answer.json() if answer.content else {}
    assert isinstance(shown, dict), f"{route} answered {answer.status_code}: {shown}"
    shown.pop("trace_id", None)
    return answer.status_code, shown


def check_every_route(victim: Tenant, tokens: Mapping[str, str]) -> None:
    """With another customer's ids, each route answers each credential as with unknown ids."""
    http = victim.customer.http
    paths = http.get("/openapi.json").json()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods if "{" in path}
    assert routes - OF_NO_TENANT == TENANT_ROUTES.keys(), "say who may call a route, so that it is tested"
    unknown = unknown_like(victim.ids)
    for route, (allowed, body) in TENANT_ROUTES.items():
        compared = {*allowed, next(kind for kind in tokens if kind not in allowed)}
        for kind, token in tokens.items():
            theirs = send(http, route, victim.ids, token, body)
            case = f"{route} as {kind}: {theirs}"
            if kind in compared:
                assert theirs == send(http, route, unknown, token, body), case
            assert theirs[0] == (404 if kind in allowed else 403), case
            assert theirs[1]["type"].removeprefix("urn:optiinfra:problem:") == (
                "not_found" if kind in allowed else "forbidden"
            ), case
            assert not [one for one in victim.ids.values() if one in str(theirs)], case


def check_borrowed_parts(victim: Tenant, stranger: Customer, runtime_id: str, tokens: Mapping[str, str]) -> None:
    """Somebody's own customer or runtime together with the id of another customer's part."""
    http, own = stranger.http, {"customer_id": stranger.id, "runtime_id": runtime_id}
    for route, part in (
        ("DELETE /customers/{customer_id}/agent-tokens/{token_id}", "token_id"),
        ("DELETE /customers/{customer_id}/api-keys/{key_id}", "key_id"),
        ("POST /agent-runtime/{runtime_id}/commands/{command_id}/result", "command_id"),
    ):
        allowed, body = TENANT_ROUTES[route]
        (kind,) = allowed
        ids = victim.ids | own
        theirs = send(http, route, ids, tokens[kind], body)
        assert theirs == send(http, route, unknown_like(victim.ids) | own, tokens[kind], body), route
        assert theirs[0] == 404, f"{route}: {theirs}"
        assert victim.ids[part] not in str(theirs)
    points = stranger.get(
        f"/customers/{stranger.id}/metrics", metric_type="monthly_cost", resource_id=victim.ids["deployment_id"]
    )
    assert points == [], "metrics of another customer's deployment"
    body = {"customer_id": victim.customer.id, "agent_token": tokens["runtime"], "hostname": "h", "version": "1"}
    assert problem(http.post("/agent-runtime/connect", json=body))[:2] == (401, "unauthenticated")


def check_streams(victim: Tenant, stranger: Customer, tokens: Mapping[str, str]) -> None:
    """A live stream is for the customer's own users, and shows their own events only."""
    url = stranger.http.base_url
    for kind, token in tokens.items():
        refusals = []
        for customer_id in (victim.customer.id, unknown_like(victim.ids)["customer_id"]):
            with pytest.raises(InvalidStatus) as refused:
                connect_live(url, customer_id, token)
            refusals.append((refused.value.response.status_code, refused.value.response.body))
        assert refusals[0] == refusals[1], kind
        assert refusals[0][0] == 403, kind
    after = stranger.get(f"/customers/{stranger.id}/events/latest")["seq"]
    with connect_live(url, f"{stranger.id}?after={after}", tokens["viewer"]) as socket:
        for customer in (victim.customer, stranger):
            customer.post(f"/customers/{customer.id}/onboard", onboard_body(customer))
        (event,) = receive(socket, 1)
    assert (event["event_type"], event["seq"]) == ("customer_onboarded", after + 1)
    assert event["payload"]["role_arn"] == stranger.seeded.clouds[0].role_arn


def check_portal(victim: Tenant, token: str) -> None:
    """The portal's JSON, which also programs read."""
    answers = []
    with httpx.Client(base_url=victim.customer.seeded.portal_url, headers=bearer(token), timeout=stretched(15)) as http:
        for customer_id in (victim.customer.id, unknown_like(victim.ids)["customer_id"]):
            answer = http.get(f"/portal/customers/{customer_id}/dashboard", headers={"accept": "application/json"})
            answers.append(problem(answer))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


def check_refused_onboarding(victim: Tenant, attacker: Customer) -> None:
    """An external id is not the caller's to choose, and a connected account not another customer's."""
    path, body = f"/customers/{attacker.id}/onboard", onboard_body(victim.customer)
    chosen = attacker.http.post(path, json=body | {"external_id": external_id_of(victim.customer)})
    assert problem(chosen)[:2] == (422, "invalid")
    assert "external_id" in chosen.text
    # The mock cloud lets anybody assume a role that it does not know.
    for role_arn in (body["iam_role_arn"], f"{body['iam_role_arn']}-2"):
        for region in (body["region"], "eu-west-1"):
            answer = attacker.http.post(path, json=body | {"iam_role_arn": role_arn, "region": region})
            assert problem(answer) == (409, "account_taken", "another customer has connected this account"), role_arn
            seeded_of = victim.customer.seeded
            assert not re.search(f"{victim.customer.id}|{re.escape(seeded_of.email)}", answer.text)
    assert attacker.get(f"/customers/{attacker.id}/events") == []
    assert attacker.infrastructure().status == "pending"


def check_fake_runtime(victim: Tenant, attacker: Customer) -> None:
    """A runtime that names the victim's instances shows none of them, and has none of them recommended."""
    with connected_runtime(attacker) as runtime:
        runtime.report(deployment("borrowed", victim.instance_ids, TYPE))
        with runtime.working():
            analysis = attacker.wait_for_analysis(attacker.start_analysis("cost"))
        assert analysis.recommendation_ids == []
    shown = attacker.infrastructure()
    assert shown.instances == []
    assert attacker.get(f"/customers/{attacker.id}/recommendations") == []


def check_forged_recommendation(victim: Tenant, attacker: Customer) -> None:
    """Even an approved change of the victim's instances is not carried out: no account of the attacker has them."""
    with seeded(attacker.environment, attacker.id) as seeds:
        forged = seeds.recommendation(*victim.instance_ids)
        answer = attacker.http.post(f"/recommendations/{forged}/approve")
        if answer.is_success:
            ended = attacker.wait_for_optimization(answer.json()["optimization_id"])
            assert ended.status in FINAL
            assert ended.result is not None
            assert not ended.result.success
            assert "no connected cloud account has" in (ended.result.error or "")
        else:
            assert problem(answer)[:2] == (409, "instances_unknown")
    assert victim.running() == victim.instance_ids


def check_role_of_an_unconnected_account(environment: dict[str, Any], attacker: Customer) -> None:
    """Before its owner connects an account: the role refuses the attacker's external id, and nothing is reserved."""
    with account_with_role(environment) as (owner, instance_ids):
        attacker.post(f"/customers/{attacker.id}/onboard", onboard_body(owner))
        status, error, shown = discovered(attacker)
        assert (status, shown) == ("failed", [])
        assert "AccessDenied" in f"{error}"
        owner.post(f"/customers/{owner.id}/onboard", onboard_body(owner))
        assert discovered(owner) == ("discovered", None, instance_ids)
        answer = attacker.http.post(f"/customers/{attacker.id}/onboard", json=onboard_body(owner))
        assert problem(answer)[:2] == (409, "account_taken")
        assert sorted(cloud_state.running_in(owner.seeded.clouds[0])) == instance_ids


def check_race(one: Customer, other: Customer) -> None:
    """Of two that onboard one account at once, one gets it."""
    body = ONBOARD | {"iam_role_arn": f"arn:aws:iam::{10**11 + uuid.uuid4().int % (9 * 10**11)}:role/r"}

    def onboard(customer: Customer) -> int:
        return customer.http.post(f"/customers/{customer.id}/onboard", json=body).status_code

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(onboard, (one, other))) == [202, 409]


def test_no_route_shows_or_changes_another_tenant_and_a_borrowed_role_gives_nothing(
    environment: dict[str, Any], callers: dict[str, Caller]
) -> None:
    with ExitStack() as stack:
        victim = stack.enter_context(tenant(environment))
        stranger, attacker = (stack.enter_context(customer_without_fleet(environment)) for _ in range(2))
        tokens = credentials_of(stranger)
        runtime = stack.enter_context(connected_runtime(stranger))
        tokens["runtime"] = runtime.http.headers["Authorization"].removeprefix("Bearer ")
        tokens |= {kind: f"{callers[kind].token}" for kind in ("agent", "enrolment")}
        before = victim.rows()
        assert {"users", "deployments", "instances", "commands", "api_keys"} <= before.keys()
        check_every_route(victim, tokens)
        check_borrowed_parts(victim, stranger, runtime.runtime_id, tokens)
        check_portal(victim, tokens["owner"])
        check_refused_onboarding(victim, attacker)
        check_fake_runtime(victim, attacker)
        check_forged_recommendation(victim, attacker)
        check_role_of_an_unconnected_account(environment, attacker)
        assert victim.rows() == before
        assert victim.running() == victim.instance_ids
        check_streams(victim, stranger, tokens)
        check_race(stranger, attacker)
