"""A changing POST that is sent again under its idempotency key changes nothing, and is answered as the first time."""

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.helpers.callers import Caller, bearer, problem, unused_address
from tests.helpers.customers import without_estate
from tests.helpers.database import execute
from tests.helpers.routes import TENANT_ROUTES
from tests.helpers.seeds import Seeds, seeded
from tests.helpers.tenants import Tenant, credentials_of, onboard_body, tenant

SECRETS = {
    "POST /customers/{customer_id}/agent-install-command": "token_id",
    "POST /customers/{customer_id}/api-keys": "key_id",
    "POST /customers/{customer_id}/users": "user_id",
    "POST /orchestrator/agents/register": "agent_id",
}
"""Routes that answer with a secret, and the id that a repeat is answered with instead."""
BY_REQUEST = ["customer_onboarded", "analysis_started", "recommendation_approved", "recommendation_rejected"]
"""Events of a request itself, not of the work that it starts."""


@dataclass
class World:
    """A tenant with something of everything that the routes change, and who may change it."""

    tenant: Tenant
    callers: dict[str, Caller]
    tokens: dict[str, str]
    ids: dict[str, dict[str, str]]
    """Values of path parameters of the routes that need others than the tenant's."""

    def credential(self, route: str) -> str:
        """A token that may call the route."""
        agent, enrolment = self.callers["agent"].token, self.callers["enrolment"].token
        if route.startswith("POST /orchestrator/agents/"):
            return str(enrolment if route.endswith("/register") else agent)
        return self.tokens["runtime" if route.startswith("POST /agent-runtime/") else "owner"]

    def path(self, route: str) -> str:
        """The route's path with ids for which it succeeds."""
        names = self.callers["agent"].ids | self.tenant.ids | self.ids.get(route, {})
        return route.removeprefix("POST ").format_map(names)

    def body(self, route: str) -> Any:
        """A valid body of the route."""
        customer = self.tenant.customer
        of_others = {
            "POST /customers/{customer_id}/onboard": onboard_body(customer),
            "POST /customers/{customer_id}/users": {"email": f"{uuid.uuid4().hex}@example.com", "role": "viewer"},
            "POST /agent-runtime/connect": {
                "customer_id": customer.id,
                "agent_token": self.tokens["runtime"],
                "hostname": "h",
                "version": "1",
            },
            "POST /orchestrator/agents/register": {
                "agent_type": "resource",
                "version": "1",
                "capabilities": [],
                "hostname": "h",
                "base_url": unused_address(),
                "pool": "idempotency",
            },
            "POST /orchestrator/agents/{agent_id}/heartbeat": {"status": "active", "current_tasks": 0, "load": 0.0},
        }
        return of_others[route] if route in of_others else TENANT_ROUTES[route][1]

    def made(self) -> dict[str, list[tuple[Any, ...]]]:
        """What requests make, by table: what belongs to the tenant, and all agents."""
        environment, mine = self.tenant.customer.environment, self.tenant.customer.id
        tables = "agent_tokens", "api_keys", "analyses", "optimizations", "runtimes", "cloud_accounts"
        found = {
            table: execute(environment, f"SELECT id FROM {table} WHERE customer_id = %s ORDER BY id", mine)  # noqa: S608
            for table in tables
        }
        keys = "SELECT key FROM telemetry_keys WHERE customer_id = %s ORDER BY key"
        events = "SELECT event_type, payload FROM events WHERE customer_id = %s AND event_type = ANY(%s) ORDER BY seq"
        return found | {
            "telemetry_keys": execute(environment, keys, mine),
            "invitations": execute(environment, "SELECT id, token_hash FROM invitations WHERE customer_id = %s", mine),
            "agents": execute(environment, "SELECT id, deregistered_at FROM agents WHERE pool = 'idempotency'"),
            "events": execute(environment, events, mine, BY_REQUEST),
        }


def own_ids(seeds: Seeds, runtime_id: str) -> dict[str, dict[str, str]]:
    """A recommendation for each route that decides one, and an optimization that no workflow executes."""
    running = seeds.optimization(seeds.recommendation("i-running", status="executing"), "running")
    return {
        "POST /recommendations/{recommendation_id}/approve": {"recommendation_id": seeds.recommendation("i-approved")},
        "POST /recommendations/{recommendation_id}/reject": {"recommendation_id": seeds.recommendation("i-rejected")},
        "POST /optimizations/{optimization_id}/rollback": {"optimization_id": running},
        "POST /agent-runtime/{runtime_id}/telemetry": {"runtime_id": runtime_id},
        "POST /agent-runtime/{runtime_id}/commands/{command_id}/result": {"runtime_id": runtime_id},
    }


@pytest.fixture
def world(environment: dict[str, Any], callers: dict[str, Caller], http: httpx.Client) -> Iterator[World]:
    with ExitStack() as stack:
        mine = stack.enter_context(tenant(environment))
        tokens = credentials_of(mine.customer)
        seeds = stack.enter_context(seeded(environment, mine.customer.id))
        connect = {"customer_id": mine.customer.id, "agent_token": tokens["runtime"], "hostname": "h", "version": "1"}
        runtime_id = http.post("/agent-runtime/connect", json=connect).json()["runtime_id"]
        yield World(mine, callers, tokens, own_ids(seeds, runtime_id))


def changing_posts(http: httpx.Client) -> dict[str, Any]:
    """The changing POSTs of the OpenAPI document that honour keys, by method and path."""
    paths = http.get("/openapi.json").json()["paths"]
    return {
        f"POST {path}": routes["post"] for path, routes in paths.items() if "post" in routes and "/auth/" not in path
    }


def send(http: httpx.Client, path: str, token: str | None, key: str, content: bytes) -> httpx.Response:
    headers = {"Content-Type": "application/json", "Idempotency-Key": key} | (bearer(token) if token else {})
    return http.post(path, content=content, headers=headers)


def test_every_changing_post_documents_the_header(http: httpx.Client) -> None:
    routes = changing_posts(http)
    assert len(routes) == 13
    for route, operation in routes.items():
        (header,) = [each for each in operation["parameters"] if each["name"].lower() == "idempotency-key"]
        assert (header["in"], header["required"]) == ("header", False), route
        (text, _null) = header["schema"]["anyOf"]
        assert (text["minLength"], text["maxLength"], text["pattern"]) == (1, 255, r"^[\x21-\x7e]+$"), route


def test_every_changing_post_with_a_known_key_changes_nothing_and_answers_alike(
    world: World, http: httpx.Client
) -> None:
    for route in changing_posts(http):
        path, token, key = world.path(route), world.credential(route), uuid.uuid4().hex
        body = world.body(route)
        content = b"" if body is None else json.dumps(body).encode()
        first = send(http, path, token, key, content)
        assert first.is_success, f"{route}: {first.status_code} {first.text}"
        assert "idempotency-replayed" not in first.headers, route
        made = world.made()
        again = send(http, path, token, key, content)
        assert again.headers.get("idempotency-replayed") == "true", f"{route}: {again.status_code} {again.text}"
        if secret_of := SECRETS.get(route):
            assert problem(again)[:2] == (409, "already_issued"), route
            assert again.json()[secret_of] == first.json()[secret_of], route
            hidden = set(first.json().values()) - {first.json()[secret_of]}
            assert not [value for value in hidden if isinstance(value, str) and len(value) > 40 and value in again.text]
        else:
            assert (again.status_code, again.json()) == (first.status_code, first.json()), route
        other = send(http, path, token, key, content + (b" " if content else b"{}"))
        assert problem(other)[:2] == (422, "idempotency_key_reused"), f"{route}: {other.status_code} {other.text}"
        for bad in ("", "k" * 256, "two words"):
            refused = send(http, path, token, bad, content)
            assert problem(refused)[0] == 422, route
            assert "header.Idempotency-Key: " in refused.text, route
        assert world.made() == made, route


def test_stored_answer_is_only_for_callers_who_may_ask(world: World, http: httpx.Client) -> None:
    route, body = "POST /customers/{customer_id}/analyze", b'{"agent_type": "cost"}'
    path, tokens = world.path(route), world.tokens
    first = send(http, path, tokens["owner"], "1", body)
    assert first.status_code == 202
    for colleague in ("approver", "approve key"):
        again = send(http, path, tokens[colleague], "1", body)
        assert (again.status_code, again.json()) == (202, first.json()), colleague
    assert problem(send(http, path, tokens["viewer"], "1", body))[:2] == (403, "forbidden")
    assert problem(send(http, path, None, "1", body))[0] == 401
    mine = world.tenant.customer
    keys = mine.get(f"/customers/{mine.id}/api-keys")
    (key_id,) = [each["key_id"] for each in keys if each["scope"] == "approve"]
    mine.http.delete(f"/customers/{mine.id}/api-keys/{key_id}").raise_for_status()
    assert problem(send(http, path, tokens["approve key"], "1", body))[0] == 401
    with without_estate(mine.environment) as other:
        theirs = other.http.headers["Authorization"].removeprefix("Bearer ")
        unknown = problem(send(http, path, theirs, "1", body))
        assert unknown[:2] == (404, "not_found")
        own = send(http, f"/customers/{other.id}/analyze", theirs, "1", body)
        assert own.status_code == 202
        assert own.json() != first.json()
        assert "idempotency-replayed" not in own.headers
