"""A provisioned customer: its API calls, its live events, its gateway."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

import httpx
from websockets.sync.client import connect

from fixtures.estates import DeploymentPart
from fixtures.provision import SeededEstate, add_deployments
from optiinfra.api.customers import Infrastructure
from optiinfra.api.events import Event
from optiinfra.api.recommendations import Analysis, Optimization, Recommendation
from optiinfra.domain.optimization import FINAL
from testbed.waiting import wait_until

ANALYSIS_SECONDS = 60.0
OPTIMIZATION_SECONDS = 240.0


class Unavailable(AssertionError):  # noqa: N818  named after the condition
    """The platform answered 503: one of its dependencies is unavailable."""


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

    def infrastructure(self) -> Infrastructure:
        """The infrastructure as the platform shows it."""
        return Infrastructure.model_validate(self.get(f"/customers/{self.id}/infrastructure"))

    def deployment_id(self, name: str) -> str:
        """The platform's id of a deployment."""
        return next(d.deployment_id for d in self.infrastructure().vllm_deployments if d.name == name)

    def start_analysis(self, agent_type: str) -> str:
        """Start an analysis; returns its id."""
        started = self.post(f"/customers/{self.id}/analyze", {"agent_type": agent_type})
        assert started["status"] == "started", f"expected a started analysis, got {started}"
        return str(started["analysis_id"])

    def wait_for_analysis(self, analysis_id: str) -> Analysis:
        """The analysis after its end."""
        return wait_until(
            lambda: Analysis.model_validate(self.get(f"/analyses/{analysis_id}")),
            f"analysis {analysis_id} to end",
            ANALYSIS_SECONDS,
            accept=lambda analysis: analysis.status != "started",
        )

    def recommendations_of(self, analysis: Analysis) -> dict[str, Recommendation]:
        """The recommendations of an analysis: by deployment name, or by type if they are about no deployment."""
        every = [
            Recommendation.model_validate(found)
            for found in self.get(f"/customers/{self.id}/recommendations", limit=1000)
        ]
        mine = [found for found in every if found.id in analysis.recommendation_ids]
        return {found.parameters.get("deployment", found.type): found for found in mine}

    def analyze(self, agent_type: str) -> dict[str, Recommendation]:
        """Run an analysis; returns its recommendations by deployment name."""
        analysis = self.wait_for_analysis(self.start_analysis(agent_type))
        assert analysis.status == "completed", f"the analysis failed: {analysis.error}"
        return self.recommendations_of(analysis)

    def optimization(self, optimization_id: str) -> Optimization:
        """The present state of an optimization."""
        return Optimization.model_validate(self.get(f"/optimizations/{optimization_id}"))

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
        answer = httpx.get(f"{self.seeded.fleet_url}/fleet/{self.id}/deployments/{deployment}", timeout=10)
        answer.raise_for_status()
        return dict(answer.json())

    def inject_fault(self, fault: dict[str, Any]) -> None:
        """Inject a fault into the customer's fleet."""
        httpx.post(f"{self.seeded.fleet_url}/fleet/{self.id}/faults", json=fault, timeout=10).raise_for_status()

    def clear_faults(self) -> None:
        """Remove every fault from the customer's fleet."""
        httpx.delete(f"{self.seeded.fleet_url}/fleet/{self.id}/faults", timeout=10).raise_for_status()

    def add_deployments(self, deployments: list[DeploymentPart]) -> None:
        """Add deployments to the estate, and wait until the platform has discovered them."""
        self.seeded = add_deployments(self.environment, self.seeded, deployments)

    @contextmanager
    def live_events(self) -> Iterator["LiveEvents"]:
        """Collect the customer's events from now on, from the WebSocket."""
        latest = self.get(f"/customers/{self.id}/events", limit=1000)
        after = latest[-1]["seq"] if latest else 0
        token = self.http.headers["Authorization"].removeprefix("Bearer ")
        address = f"{self.seeded.orchestrator_url.replace('http', 'ws', 1)}/ws/customers/{self.id}?after={after}"
        with connect(address, subprotocols=["optiinfra.v1", f"bearer.{token}"]) as socket:  # type: ignore[list-item]
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
        """Receive events until the socket closes."""
        for message in socket:
            self.received.append(Event.model_validate(json.loads(message)))

    def wait_for(self, event_type: str, seconds: float = 10.0) -> list[Event]:
        """All received events, after one of that type has arrived."""
        return wait_until(
            lambda: list(self.received),
            f"event {event_type}",
            seconds,
            accept=lambda events: any(event.event_type == event_type for event in events),
        )
