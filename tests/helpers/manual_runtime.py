"""A customer's runtime that a test operates itself: it reports and acknowledges what the test says, when it says so."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from threading import Event, Thread
from typing import Any

import httpx

from testbed.waiting import stretched
from tests.helpers.callers import bearer, call

Figures = Sequence[tuple[str, str, datetime, float]]
"""Values of one metric: deployment id, replica id or '', time, value."""


class ManualRuntime:
    """A connected runtime. `deployments` is what it reports, as `DiscoveredDeployment`."""

    def __init__(self, http: httpx.Client, customer_id: str, owner_token: str) -> None:
        installed = call(http, "GET", f"/customers/{customer_id}/agent-install-command", owner_token)
        self._http, self._token = http, installed["agent_token"]
        self.deployments: list[dict[str, Any]] = []
        body = {"customer_id": customer_id, "agent_token": self._token, "hostname": "test", "version": "1"}
        self._path = f"/agent-runtime/{call(http, 'POST', '/agent-runtime/connect', body=body)['runtime_id']}"

    @property
    def token(self) -> str:
        """Its credential."""
        return str(self._token)

    def report(self) -> dict[str, str]:
        """Report the inventory; the platform's ids of the deployments by name."""
        body = {"deployments": self.deployments}
        ids: dict[str, str] = call(self._http, "PUT", f"{self._path}/inventory", self._token, body)["deployment_ids"]
        return ids

    def send(self, metric: str, figures: Figures) -> None:
        """Send values of a metric."""
        samples = [
            {
                "deployment_id": deployment,
                "replica_id": replica,
                "metric": metric,
                "timestamp": moment.isoformat(),
                "value": value,
            }
            for deployment, replica, moment, value in figures
        ]
        call(self._http, "POST", f"{self._path}/telemetry", self._token, {"samples": samples})

    @contextmanager
    def working(self) -> Iterator[None]:
        """Acknowledge every request for discovery inside the context; commands wait outside of it."""
        stop = Event()
        thread = Thread(target=self._acknowledge_until, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _acknowledge_until(self, stop: Event) -> None:
        headers = bearer(self.token)
        with httpx.Client(base_url=self._http.base_url, headers=headers, timeout=stretched(15)) as http:
            while not stop.is_set():
                for command in http.get(f"{self._path}/commands", params={"wait": 0.5}).raise_for_status().json():
                    assert command["kind"] == "discover", command
                    self.report()
                    result = http.post(f"{self._path}/commands/{command['command_id']}/result", json={"ok": True})
                    result.raise_for_status()


def deployment(name: str, instance_ids: Sequence[str], instance_type: str) -> dict[str, Any]:
    """A deployment with one ready replica on each instance."""
    replicas = [f"{name}-{number}" for number in range(len(instance_ids))]
    return {
        "name": name,
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "provider": "aws",
        "region": "us-east-1",
        "engine_args": {},
        "weights": {replica: 1 / len(replicas) for replica in replicas},
        "slo": {"p95_latency_ms": 10_000.0, "quality": 0.9},
        "interruptible": False,
        "replicas": [
            {"replica_id": replica, "instance_id": one, "instance_type": instance_type, "state": "ready"}
            for replica, one in zip(replicas, instance_ids, strict=True)
        ],
    }
