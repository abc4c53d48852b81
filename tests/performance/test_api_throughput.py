"""The API's real mix for eight seconds, beside a bare service that authenticates alike and reads as many rows.

Both services are asked in turn, in slices of a quarter of a second, so that whatever else the machine does slows both.
Sixteen connections ask for single rows in one slice, for lists in the next. They are browsers of one customer, so that
concurrent requests for a series share its query, as on a dashboard that many have open.

Meanwhile another connection asks the platform for `/health` every 20 ms. An answer takes as long as the event loop
stalls, and as long as the service and this process wait for a processor, or the machine for its host. The latter are
subtracted where the system tells them (Linux): other programs, and other machines of the host, are no stall.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvloop

from testbed import paths
from testbed.environment import free_port
from testbed.figures import Figures
from testbed.supervision import processes_of
from testbed.waiting import wait_until
from tests.helpers.customer import Customer
from tests.helpers.load import Connection, Load, load
from tests.helpers.own_environment import runs
from tests.helpers.processor import taken_by_the_host, waited_for_processor

pytestmark = pytest.mark.performance

CONNECTIONS = 16
ROUNDS, SLICE_SECONDS = 16, 0.25
"""In each round both kinds of requests have one slice at each service: eight seconds at the platform."""
PROBE_SECONDS = 0.02
LEAST_SHARE = {"single rows": 0.6, "lists": 0.4}
MOST_STALL = 50.0

Mix = dict[str, list[str]]
"""The requests of each kind."""


def test_api_throughput_is_close_to_that_of_a_bare_service(
    acme: Customer, environment: dict[str, Any], figures: Figures
) -> None:
    mix = requests_of(acme)
    token = acme.http.headers["Authorization"].removeprefix("Bearer ")
    (orchestrator,) = [each for each in processes_of(environment["name"]) if runs(each, "optiinfra.orchestrator")]
    with bare_service(environment) as bare:
        services = {"platform": environment["urls"]["orchestrator"], "bare": bare}
        measured = uvloop.run(Measurement(services, token, orchestrator.pid).run(mix))

    for kind, least in LEAST_SHARE.items():
        platform, bare_load = measured.loads["platform", kind], measured.loads["bare", kind]
        figures.record(f"{kind}, platform", platform.per_second, "requests/s")
        figures.record(f"{kind}, bare service", bare_load.per_second, "requests/s")
        figures.record(f"{kind}, share", platform.per_second / bare_load.per_second, at_least=least)
    figures.record("longest stall", 1000 * max(measured.stalls), "ms", at_most=MOST_STALL)
    figures.plot(
        rounds={f"{service}, {kind}": rates for (service, kind), rates in measured.rates.items()},
        health_ms=[1000 * stall for stall in measured.stalls],
    )
    assert [error for each in measured.loads.values() for error in each.errors] == []
    assert figures.missed() == []


class Measurement:
    """Slices of load on each service in turn; what they measured is in `loads`, `rates` and `stalls` (seconds)."""

    def __init__(self, services: dict[str, str], token: str, pid: int) -> None:
        self._services, self._token, self._pid = services, token, pid
        self.loads: dict[tuple[str, str], Load] = {}
        self.rates: dict[tuple[str, str], list[float]] = {}
        self.stalls: list[float] = []

    async def run(self, mix: Mix) -> "Measurement":
        """Measure, after a slice of each kind to open connections and prepare statements."""
        connections = {
            service: [await Connection.open(url, self._token) for _ in range(CONNECTIONS)]
            for service, url in self._services.items()
        }
        health = await Connection.open(self._services["platform"])
        for each in connections.values():
            for paths_of_kind in mix.values():
                await load(each, paths_of_kind, SLICE_SECONDS)
        for turn in range(ROUNDS):
            for kind, paths_of_kind in mix.items():
                for service in sorted(connections, reverse=turn % 2 == 0):
                    sliced = load(connections[service], paths_of_kind, SLICE_SECONDS)
                    if service == "platform":
                        probed = asyncio.create_task(self._probe(health, time.perf_counter() + SLICE_SECONDS))
                        self._add(service, kind, await sliced)
                        await probed
                    else:
                        self._add(service, kind, await sliced)
        for opened in [*connections["platform"], *connections["bare"], health]:
            opened.close()
        return self

    def _add(self, service: str, kind: str, done: Load) -> None:
        self.loads.setdefault((service, kind), Load()).add(done)
        self.rates.setdefault((service, kind), []).append(done.per_second)

    async def _probe(self, health: Connection, until: float) -> None:
        while time.perf_counter() < until:
            waited = self._waited()
            asked = time.perf_counter()
            status, body = await health.get("/health")
            assert status == 200, body
            self.stalls.append(max(0.0, time.perf_counter() - asked - (self._waited() - waited)))
            await asyncio.sleep(PROBE_SECONDS)

    def _waited(self) -> float:
        return waited_for_processor(self._pid) + waited_for_processor(os.getpid()) + taken_by_the_host()


def requests_of(customer: Customer) -> Mix:
    """What a portal asks for: of a customer with a completed analysis and a completed optimization."""
    analysis = customer.wait_for_analysis(customer.start_analysis("cost"))
    recommendation = customer.recommendations_of(analysis)["vllm-prod-1"]
    optimization_id = customer.post(f"/recommendations/{recommendation.id}/approve")["optimization_id"]
    assert customer.wait_for_optimization(optimization_id).status == "completed"
    mine = f"/customers/{customer.id}"
    points = len(customer.get(f"{mine}/metrics", metric_type="throughput"))
    mix = {
        "single rows": [mine, f"/analyses/{analysis.id}", f"/optimizations/{optimization_id}"],
        "lists": [
            f"{mine}/recommendations",
            f"{mine}/infrastructure",
            f"{mine}/events",
            f"{mine}/metrics?metric_type=throughput&limit={points}",
        ],
    }
    assert all(customer.http.get(path).json() for path in mix["lists"]), "a list is empty"
    return mix


@contextmanager
def bare_service(environment: dict[str, Any]) -> Iterator[str]:
    """The address of the bare service, which runs meanwhile."""
    port = free_port(set())
    settings = {
        "POSTGRESQL_URL": environment["urls"]["postgresql"].replace("+psycopg", ""),
        "TOKEN_SIGNING_KEY": environment["credentials"]["token_signing_key"],
        "PORT": str(port),
    }
    command = [sys.executable, "-m", "tests.performance.bare_service"]
    # In a session of its own, as the platform's services are: Linux divides a busy processor among sessions.
    with subprocess.Popen(command, cwd=paths.ROOT, env=os.environ | settings, start_new_session=True) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(
                lambda: httpx.get(f"{url}/health").is_success,
                "the bare service to answer",
                30,
                transient=(httpx.TransportError,),
            )
            yield url
        finally:
            process.terminate()
