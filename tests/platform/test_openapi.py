"""Responses conform to the OpenAPI document, for callers of every kind and generated requests."""

import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from fixtures import estates
from tests.helpers.callers import Caller, all_callers, bearer
from tests.helpers.customers import ESTATES, provisioned

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
AnyCase = Case[Any]
MODES = list(GenerationMode)
SEED = 20_261_125
EXAMPLES = 15
NEVER_SUCCESSFUL = {
    # These need a secret that cannot be guessed,
    "POST /auth/login",
    "POST /auth/refresh",
    "POST /auth/password",
    "POST /auth/accept-invitation",
    "POST /agent-runtime/connect",
    # a pending command, or a recommendation that is not approved,
    "POST /agent-runtime/{runtime_id}/commands/{command_id}/result",
    "POST /recommendations/{recommendation_id}/reject",
    # this checks the stores and clouds of all customers, which takes as long as the slowest one,
    "GET /admin/consistency",
    "GET /admin/audit-verification",
    # and these would delete the callers.
    "DELETE /customers/{customer_id}",
    "DELETE /orchestrator/agents/{agent_id}",
    # These need the id of something that was made before.
    "DELETE /customers/{customer_id}/agent-tokens/{token_id}",
    "DELETE /customers/{customer_id}/api-keys/{key_id}",
    "DELETE /customers/{customer_id}/users/{user_id}",
    "DELETE /auth/sessions/{session_id}",
}
ESTATE_IDS = ("analysis_id", "recommendation_id", "optimization_id")


class World:
    """The callers and their ids, and what their calls created, to be deleted afterwards."""

    def __init__(self, environment: dict[str, Any], cleanup: ExitStack) -> None:
        self.url: str = environment["urls"]["orchestrator"]
        self.admin = bearer(environment["credentials"]["admin_token"])
        self.callers = cleanup.enter_context(all_callers(environment))
        acme = cleanup.enter_context(provisioned(environment, estates.load(ESTATES / "acme.yaml")))
        analysis = acme.wait_for_analysis(acme.start_analysis("cost"))
        approved, refused = (acme.recommendations_of(analysis)[name].id for name in ("vllm-prod-1", "vllm-prod-2"))
        optimization = acme.post(f"/recommendations/{approved}/approve")["optimization_id"]
        acme.wait_for_optimization(optimization)
        token = acme.http.headers["Authorization"].removeprefix("Bearer ")
        ids = {"customer_id": acme.id, "analysis_id": analysis.id, "optimization_id": optimization}
        self.owners = [
            Caller("owner of an estate", token, ids | {"recommendation_id": recommendation})
            for recommendation in (approved, refused)
        ]
        login = {"username": acme.seeded.email, "password": acme.seeded.password}
        # Signing out ends this session only; the other calls still need theirs.
        self.signing_out = Caller("user who signs out", acme.post("/auth/login", login)["access_token"], ids)
        self.kept = {acme.id, *self.callers["user"].ids.values()}
        self.customers: list[str] = []
        self.agents: dict[str, str] = {}
        self.session = requests.Session()
        self.cases = 0
        self.answers: defaultdict[str, set[int]] = defaultdict(set)

    def callers_for(self, path: str, method: str) -> list[Caller]:
        """Public routes get an anonymous caller. Routes of an estate need its owner, who makes no other changes."""
        if path.startswith("/auth/") and method == "POST":
            return [self.callers["anonymous"], *([self.signing_out] if path.endswith("logout") else [])]
        if path.startswith("/admin/"):
            return [caller for caller in self.callers.values() if caller.kind != "admin"]
        with_owners = method == "GET" or any(name in path for name in ESTATE_IDS)
        return [*self.callers.values(), *(self.owners if with_owners else [])]

    def record(self, answer: Any) -> None:
        """Record what a response says was created."""
        made = answer.json() if answer.status_code == 201 else {}
        if "agent_secret" in made:
            self.agents[made["agent_id"]] = made["agent_secret"]
        elif "success" in made:
            self.customers.append(made["customer_id"])

    def clean_up(self) -> None:
        """Delete what the calls created."""
        with httpx.Client(base_url=self.url, timeout=30) as http:
            for agent_id, secret in self.agents.items():
                answer = http.delete(f"/orchestrator/agents/{agent_id}", headers=bearer(secret))
                # 401: another agent registered with the same address and replaced it.
                assert answer.status_code in (204, 401), answer.text
            for customer_id in self.customers:
                http.delete(f"/customers/{customer_id}", headers=self.admin).raise_for_status()


@pytest.fixture(scope="module")
def world(environment: dict[str, Any]) -> Iterator[World]:
    with ExitStack() as cleanup:
        world = World(environment, cleanup)
        yield world
        world.clean_up()


def without_long_waits(query: dict[str, Any]) -> dict[str, Any]:
    """The query with `wait=0` where it would be a valid number of seconds, or the default."""
    try:
        waits = float(query.get("wait", math.inf)) >= 0
    except (TypeError, ValueError):
        waits = False
    return query | {"wait": 0} if waits else query


def send(world: World, case: AnyCase) -> None:
    """Send a case as each kind of caller, every other time with their own ids; each answer must be as documented."""
    world.cases += 1
    given = dict(case.path_parameters or {})
    if case.path.endswith("/commands"):
        case.query = without_long_waits(dict(case.query or {}))
    for caller in world.callers_for(case.path, case.method):
        if world.cases % 2:
            case.path_parameters = {name: caller.ids.get(name, value) for name, value in given.items()}
        if case.method == "DELETE" and world.kept & set(map(str, case.path_parameters.values())):
            continue
        answer = case.call(headers=caller.headers, timeout=30, session=world.session)
        world.answers[case.operation.label].add(answer.status_code)
        world.record(answer)
        case.validate_response(answer, checks=CHECKS)


def test_responses_conform_to_the_openapi_document(world: World, subtests: pytest.Subtests) -> None:
    document = schemathesis.openapi.from_url(f"{world.url}/openapi.json")
    operations = [result.ok() for result in document.get_all_operations() if isinstance(result, Ok)]
    assert len(operations) == sum(map(len, document.raw_schema["paths"].values())), "some operations cannot be parsed"
    for operation in operations:
        kinds = [operation.as_strategy(mode) for mode in MODES]

        @seed(SEED)
        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.one_of(kinds))
        def fuzz(case: AnyCase) -> None:
            send(world, case)

        with subtests.test(operation.label):
            for case in document.iter_coverage_cases(
                operation, generation_modes=MODES, generation_config=document.config.generation
            ):
                send(world, case)
            fuzz()
            statuses = world.answers[operation.label]
            successful = any(200 <= status < 300 for status in statuses)
            assert successful is (operation.label not in NEVER_SUCCESSFUL), f"it answered {sorted(statuses)}"
