"""A provisioned customer: its API calls, its live events, its gateway."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, TypeVar

import httpx
from websockets.exceptions import ConnectionClosedError

from fixtures.estates import DeploymentPart
from fixtures.provision import SeededEstate, add_deployments
from fixtures.trust import AUTHORITIES
from optiinfra.api import calls
from optiinfra.api.calls import Call
from optiinfra.api.client import ApiClient, ApiError
from optiinfra.api.customers import Infrastructure
from optiinfra.api.events import Event
from optiinfra.api.recommendations import Analysis, Optimization, Recommendation
from optiinfra.domain.optimization import FINAL
from optiinfra.domain.recommendation import AgentType
from testbed.waiting import wait_until
from tests.helpers.live import connect_live

ANALYSIS_SECONDS = 60.0
SESSION_ENDED = 4401
OPTIMIZATION_SECONDS = 240.0


class Unavailable(AssertionError):  # noqa: N818  named after the condition
    """The platform answered 503: one of its dependencies is unavailable."""


T = TypeVar("T")


def _json(answer: httpx.Response) -> Any:
    text = f"{answer.request.method} {answer.request.url.path} answered {answer.status_code}: {answer.text}"
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        raise Unavailable(text)
    assert answer.is_success, text
    return answer.json()


@dataclass
class Customer:
    """One provisioned customer, signed in as its owner."""

    environment: dict[str, Any]
    seeded: SeededEstate
    http: httpx.Client

    @property
    def id(self) -> str:
        """The customer's id."""
        return self.seeded.customer_id

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON response of a GET; fails unless it succeeded."""
        return _json(self.http.get(path, params=parameters))

    def post(self, path: str, body: object = None) -> Any:
        """The JSON response of a POST; fails unless it succeeded."""
        return _json(self.http.post(path, json=body))

    def send(self, call: Call[T]) -> T:
        """The response to a call of `api.calls`; fails unless it succeeded."""
        try:
            return ApiClient(self.http).send(call)
        except ApiError as error:
            failure = Unavailable if error.status == httpx.codes.SERVICE_UNAVAILABLE else AssertionError
            raise failure(str(error)) from error

    def infrastructure(self) -> Infrastructure:
        """The infrastructure as the platform shows it."""
        return self.send(calls.infrastructure(self.id))

    def onboard(self) -> Infrastructure:
        """Connect the customer's accounts, or have them listed again, and wait until they are discovered."""
        for cloud in self.seeded.clouds:
            body = {"cloud_provider": cloud.provider, "region": cloud.region, "iam_role_arn": cloud.role_arn}
            self.post(f"/customers/{self.id}/onboard", body)
        return wait_until(
            self.infrastructure,
            f"discovery of the accounts of {self.id}",
            ANALYSIS_SECONDS,
            accept=lambda found: found.status == "discovered",
        )

    def deployment_id(self, name: str) -> str:
        """The platform's id of a deployment."""
        return next(d.deployment_id for d in self.infrastructure().vllm_deployments if d.name == name)

    def start_analysis(self, agent_type: AgentType) -> str:
        """Start an analysis; returns its id."""
        return self.send(calls.start_analysis(self.id, agent_type)).analysis_id

    def wait_for_analysis(self, analysis_id: str) -> Analysis:
        """The analysis after its end."""
        return wait_until(
            lambda: self.send(calls.analysis(analysis_id)),
            f"analysis {analysis_id} to end",
            ANALYSIS_SECONDS,
            accept=lambda analysis: analysis.status != "started",
        )

    def recommendations_of(self, analysis: Analysis) -> dict[str, Recommendation]:
        """The recommendations of an analysis: by deployment name, or by type if they are about no deployment."""
        every = self.send(calls.recommendations(self.id, limit=1000))
        mine = [found for found in every if found.id in analysis.recommendation_ids]
        return {found.parameters.get("deployment", found.type): found for found in mine}

    def analyze(self, agent_type: AgentType) -> dict[str, Recommendation]:
        """Run an analysis; returns its recommendations by deployment name."""
        analysis = self.wait_for_analysis(self.start_analysis(agent_type))
        assert analysis.status == "completed", f"the analysis failed: {analysis.error}"
        return self.recommendations_of(analysis)

    def optimization(self, optimization_id: str) -> Optimization:
        """The present state of an optimization."""
        return self.send(calls.optimization(optimization_id))

    def wait_for_optimization(self, optimization_id: str) -> Optimization:
        """The optimization after its end."""
        return wait_until(
            lambda: self.optimization(optimization_id),
            f"optimization {optimization_id} to end",
            OPTIMIZATION_SECONDS,
            accept=lambda optimization: optimization.status in FINAL,
            poll=0.2,
        )

    def wait_for_rollback(self, optimization_id: str) -> Optimization:
        """The optimization after its rollback, successful or not."""
        return wait_until(
            lambda: self.optimization(optimization_id),
            f"optimization {optimization_id} to be rolled back",
            OPTIMIZATION_SECONDS,
            accept=lambda optimization: optimization.status in ("rolled_back", "failed"),
            poll=0.2,
        )

    def fleet(self, deployment: str) -> dict[str, Any]:
        """The deployment as its own gateway describes it, read directly."""
        return dict(self._gateway("GET", f"deployments/{deployment}").json())

    def inject_fault(self, fault: dict[str, Any]) -> None:
        """Inject a fault into the customer's fleet."""
        self._gateway("POST", "faults", json=fault)

    def clear_faults(self) -> None:
        """Remove every fault from the customer's fleet."""
        self._gateway("DELETE", "faults")

    def _gateway(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        url = f"{self.seeded.fleet_url}/fleet/{self.id}/{path}"
        return httpx.request(method, url, timeout=10, verify=AUTHORITIES, **arguments).raise_for_status()

    def add_deployments(self, deployments: list[DeploymentPart]) -> None:
        """Add deployments to the estate, and wait until the platform has discovered them."""
        self.seeded = add_deployments(self.environment, self.seeded, deployments)

    @contextmanager
    def live_events(self) -> Iterator["LiveEvents"]:
        """Collect the customer's events from now on, from the WebSocket."""
        after = self.send(calls.latest_event(self.id)).seq
        token = self.http.headers["Authorization"].removeprefix("Bearer ")
        with connect_live(self.seeded.orchestrator_url, f"{self.id}?after={after}", token) as socket:
            events = LiveEvents(after)
            reader = Thread(target=events.collect, args=(socket,))
            reader.start()
            try:
                yield events
            finally:
                socket.close()
                reader.join()


@dataclass
class LiveEvents:
    """Events received from the WebSocket; their numbers are above `after`."""

    after: int
    received: list[Event] = field(default_factory=list)

    def collect(self, socket: Any) -> None:
        """Receive events until the socket closes, as it does when the customer is deleted."""
        try:
            for message in socket:
                self.received.append(Event.model_validate(json.loads(message)))
        except ConnectionClosedError as error:
            if error.rcvd is None or error.rcvd.code != SESSION_ENDED:
                raise

    def wait_for(self, event_type: str, seconds: float = 10.0) -> list[Event]:
        """All received events, after one of that type has arrived."""
        return wait_until(
            lambda: list(self.received),
            f"event {event_type}",
            seconds,
            accept=lambda events: any(event.event_type == event_type for event in events),
        )
