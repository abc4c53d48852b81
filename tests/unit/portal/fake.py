"""A fake orchestrator that answers from memory."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic_core import to_json
from starlette.testclient import TestClient

from optiinfra.api.accounts import Identity
from optiinfra.api.agents import Agent, Prediction, Validation
from optiinfra.api.common import PORTAL_CLIENT_HEADER, PORTAL_SECRET_HEADER
from optiinfra.api.customers import CloudTrust, Deployment, Infrastructure, Instance, Replica, Slo
from optiinfra.api.recommendations import Optimization, Recommendation, Result, Step
from optiinfra.domain.optimization import STEPS
from optiinfra.portal.app import create
from optiinfra.portal.settings import Settings
from tests.unit.portal.administration import Administration
from tests.unit.portal.administration import problem as problem

NOW = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
OWNER = Identity(customer_id="cust_1", email="ops@acme.example", role="owner")
PASSWORD = "correct-horse-battery"
SECRET = "the portal's secret of the unit tests"
ADDRESS = "http://portal.test"
TRUST = CloudTrust(
    external_id="ext-1",
    trust_policy={"Statement": [{"Condition": {"StringEquals": {"sts:ExternalId": "ext-1"}}}]},
    permissions_policy={"Statement": [{"Action": ["ec2:DescribeInstances"], "Resource": ["<b>*</b>"]}]},
)


VERDICT = {
    "looks": 4,
    "since": "2026-11-02T09:30:00+00:00",
    "verdicts": {"performance": {"reason": "p95 7,077 ms over 304 requests", "decision": "pass", "estimate": 7077.0}},
}


def portal(orchestrator: "Orchestrator") -> FastAPI:
    """A portal whose API calls go to this orchestrator."""
    settings = Settings(
        orchestrator_url="http://orchestrator.test",
        portal_session_key="the session key of the unit tests",
        portal_secret=SECRET,
        version="abc1234",
    )
    transport = httpx.MockTransport(orchestrator)
    return create(settings, httpx.AsyncClient(base_url=settings.orchestrator_url, transport=transport))


def browser(app: FastAPI) -> TestClient:
    """A browser, not signed in, which does not follow redirects."""
    headers = {"accept": "text/html", "origin": ADDRESS, "sec-fetch-site": "same-origin"}
    return TestClient(app, base_url=ADDRESS, headers=headers, follow_redirects=False, raise_server_exceptions=False)


class Orchestrator:
    """One user and that user's customer. `unavailable` refuses connections, `calls` lists the requests.

    `invalid` is a path that is answered with an unexpected JSON body, `refusal` what every request is answered with.
    `forwarded` are the headers with which the portal forwarded the address of the last request's user.
    """

    def __init__(self) -> None:
        self.identity = OWNER
        self.unavailable = False
        self.invalid = ""
        self.refusal: httpx.Response | None = None
        self.expires_in = 900
        self.logins = 0
        self.calls: list[str] = []
        self.forwarded: dict[str, str | None] = {}
        self.infrastructure = estate()
        self.recommendations = [recommendation("rec_1"), recommendation("rec_2", objection="p95 would pass 10 s")]
        self.optimizations: list[Optimization] = []
        self.administration = Administration(PASSWORD)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """httpx.MockTransport's handler."""
        self.calls.append(f"{request.method} {request.url.path}")
        self.forwarded = {name: request.headers.get(name) for name in (PORTAL_SECRET_HEADER, PORTAL_CLIENT_HEADER)}
        if self.unavailable:
            raise httpx.ConnectError("connection refused")
        if self.refusal is not None:
            return self.refusal
        if request.url.path == self.invalid:
            return httpx.Response(200, json={"unexpected": "body"})
        public: dict[str, Callable[[dict[str, Any]], httpx.Response]] = {
            "/auth/login": self._login,
            "/auth/refresh": self._refresh,
            "/auth/accept-invitation": self.administration.accept,
        }
        if request.url.path in public:
            return public[request.url.path](json.loads(request.content))
        if request.headers.get("authorization") != f"Bearer access-{self.logins}":
            return problem(401, "unauthenticated", "no valid credential")
        return self._signed_in(request)

    def _login(self, body: dict[str, Any]) -> httpx.Response:
        if body != {"username": OWNER.email, "password": PASSWORD}:
            return problem(401, "wrong_credentials", "wrong e-mail address or password")
        return self._tokens()

    def _refresh(self, body: dict[str, Any]) -> httpx.Response:
        if body["refresh_token"] != f"refresh-{self.logins}":
            return problem(401, "refresh_refused", "used already")
        return self._tokens()

    def _tokens(self) -> httpx.Response:
        self.logins += 1
        tokens = {"access_token": f"access-{self.logins}", "refresh_token": f"refresh-{self.logins}"}
        return httpx.Response(200, json=tokens | {"expires_in": self.expires_in})

    def _signed_in(self, request: httpx.Request) -> httpx.Response:
        customer = f"/customers/{self.identity.customer_id}"
        shown: dict[str, Any] = {
            "/auth/me": self.identity,
            f"{customer}/cloud-trust": TRUST,
            f"{customer}/infrastructure": self.infrastructure,
            f"{customer}/recommendations": self.recommendations,
            f"{customer}/optimizations": self.optimizations,
            f"{customer}/metrics": [],
            f"{customer}/events/latest": {"seq": 41},
            "/orchestrator/agents": [agent(kind) for kind in ("cost", "performance", "resource", "application")],
        } | {f"/optimizations/{one.id}": one for one in self.optimizations}
        path = request.url.path
        if path in shown and request.method == "GET":
            found = shown[path]
            return httpx.Response(200, content=to_json(found))
        if path == "/auth/logout":
            return httpx.Response(204)
        if (answer := self.administration.answer(request, customer, self.identity.role)) is not None:
            return answer
        for one in self.recommendations:
            if path == f"/recommendations/{one.id}/approve":
                if not all(validation.approved for validation in one.validations):
                    return problem(409, "refused_by_validator", "the performance agent objects")
                return httpx.Response(200, json={"status": "approved", "optimization_id": "opt_1"})
            if path == f"/recommendations/{one.id}/reject":
                return httpx.Response(200, json=one.model_dump(mode="json"))
        return problem(404, "not_found", "no such thing")


def agent(kind: Any) -> Agent:
    """A healthy agent."""
    return Agent(
        agent_id=f"agent_{kind}",
        agent_type=kind,
        status="active",
        version="abc1234",
        hostname="h",
        base_url="http://a",
        pool="default",
        capabilities=[],
        last_heartbeat_at=NOW,
        current_tasks=0,
        load=0.0,
    )


def estate() -> Infrastructure:
    """Two deployments on two instances each, and a stopped instance that costs nothing."""

    def instance(number: int, kind: str, cost: float, state: Any = "running") -> Instance:
        return Instance(
            instance_id=f"i-{number}",
            provider="aws",
            region="us-east-1",
            instance_type=kind,
            lifecycle="on-demand",
            gpu_type="A100-80GB",
            gpu_count=8,
            monthly_cost=cost,
            state=state,
        )

    def deployment(name: str, *numbers: int, kind: str) -> Deployment:
        engines = [
            Replica(replica_id=f"r-{number}", instance_id=f"i-{number}", instance_type=kind, state="ready")
            for number in numbers
        ]
        return Deployment(
            deployment_id=f"dep_{name}",
            name=name,
            model="meta-llama/Llama-3.1-70B-Instruct",
            provider="aws",
            region="us-east-1",
            replicas=2,
            engine_args={"tensor_parallel_size": 8},
            weights={},
            slo=Slo(p95_latency_ms=10_000, quality=0.9),
            interruptible=True,
            engines=engines,
        )

    return Infrastructure(
        status="discovered",
        instances=[
            instance(1, "p4de.24xlarge", 20_036.35),
            instance(2, "p4de.24xlarge", 20_036.35),
            instance(3, "p5.48xlarge", 40_179.20),
            instance(4, "p5.48xlarge", 40_179.20),
            instance(5, "g5.12xlarge", 0.0, "stopped"),
        ],
        vllm_deployments=[
            deployment("vllm-prod-1", 1, 2, kind="p4de.24xlarge"),
            deployment("vllm-prod-2", 3, 4, kind="p5.48xlarge"),
        ],
    )


def recommendation(name: str, objection: str | None = None) -> Recommendation:
    """A spot migration, which the performance agent refuses with the reason `objection` if there is one."""
    where = "vllm-prod-2" if objection else "vllm-prod-1"
    return Recommendation(
        id=name,
        agent_type="cost",
        type="spot_migration",
        title=f"Move {where} to spot instances",
        explanation="2 p4de.24xlarge at $14.77 instead of $27.45 an hour; reclaimed about 0.03 times a month each.",
        risk_level="medium" if objection else "low",
        confidence=0.82,
        estimated_savings=18_514.0,
        predicted=Prediction(monthly_cost=21_558.0, p95_latency_ms=7_410.0, quality_score=0.971),
        affected_resources=["i-1", "i-2"],
        parameters={},
        validations=[
            Validation(
                agent_type="performance",
                approved=objection is None,
                reason=objection or "p95 stays at 7.4 s of 10 s, 9.1 s with one replica lost",
            ),
            Validation(
                agent_type="application",
                approved=True,
                reason="117 of 120 golden prompts right today; that is the baseline",
                baseline_established=True,
                baseline_quality=0.975,
            ),
        ],
        similar_outcomes=["opt_0"],
        status="rejected" if objection else "pending",
        created_at=NOW,
        expires_at=NOW + timedelta(days=7),
    )


def idle_shutdown(name: str) -> Recommendation:
    """A shutdown of an idle instance, without any figure of latency or quality."""
    spot = recommendation(name)
    return spot.model_copy(
        update={
            "type": "idle_shutdown",
            "title": "Shut down 1 idle instance in us-east-1",
            "predicted": Prediction(monthly_cost=0.0, p95_latency_ms=None, quality_score=None),
            "validations": [
                validation.model_copy(update={"baseline_quality": None}) for validation in spot.validations
            ],
        }
    )


def optimization(name: str, status: Any, done: int, *, result: Result | None = None) -> Optimization:
    """A spot migration with `done` completed steps; if it is running, also with the next step."""
    steps = [
        Step(
            name=step,
            status="completed",
            attempt=1,
            started_at=NOW + timedelta(seconds=20 * number),
            completed_at=NOW + timedelta(seconds=20 * number + 12),
            detail=VERDICT if "validate" in step else {"weights": {"r-8": 0.2}},
        )
        for number, step in enumerate(STEPS["spot_migration"][:done])
    ]
    if status == "running":
        following = STEPS["spot_migration"][done]
        steps.append(Step(name=following, status="running", attempt=2, started_at=NOW, completed_at=None, detail={}))
    return Optimization(
        id=name,
        recommendation_id="rec_1",
        type="spot_migration",
        status=status,
        started_at=NOW,
        completed_at=None if status == "running" else NOW + timedelta(seconds=150),
        execution_steps=steps,
        rollback_steps=[],
        result=result,
    )


def success() -> Result:
    """The result of a successful optimization."""
    return Result(
        success=True,
        predicted_savings=18_514.0,
        actual_savings=18_420.0,
        cost_before=40_072.7,
        cost_after=21_652.7,
        reduction_percent=45.97,
        p95_before=7_120.0,
        p95_after=7_203.4,
        quality_before=0.975,
        quality_after=0.967,
        quality_lower_bound=0.941,
        requests_dropped=0,
    )
