"""Fairness: what one customer does at the limits of the platform hardly slows another one."""

import asyncio
import os
import random
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from fixtures import estates
from optiinfra.api.events import SUBPROTOCOL, bearer_subprotocol
from testbed.figures import percentile
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, provisioned
from tests.helpers.private_platform import PrivatePlatform, private_platform_over

pytestmark = [pytest.mark.performance, pytest.mark.timeout(300)]  # no other test may run meanwhile

ANALYSES, SIGN_INS, ONBOARDINGS, STREAMS = 40, 250, 25, 200
ROUNDS = 2
QUIET_TURNS, DASHBOARDS_A_TURN = 8, 5
MOST_SLOWER = {"dashboard": 4.0, "analysis": 3.0}
QUOTAS = {
    "QUOTA_ANALYSES": "8",
    "QUOTA_ONBOARDINGS": "5",
    "QUOTA_STREAMS": "50",
    "RATE_LIMIT_LOCKOUT_FAILURES": "5",
    "RATE_LIMIT_AUDITED_REFUSALS": "60/minute",
}
"""The platform's defaults. Its limit of requests a second, which would refuse most of the load, is raised."""

Times = dict[str, list[float]]
"""Seconds that dashboards and analyses took."""


@pytest.fixture(scope="module")
def platform(environment: dict[str, Any]) -> Iterator[PrivatePlatform]:
    with private_platform_over(environment, f"fairness-{os.getpid()}", QUOTAS, proxied=()) as platform:
        yield platform


@pytest.fixture
def quiet(platform: PrivatePlatform) -> Iterator[Customer]:
    """The customer whose requests are timed."""
    with provisioned(platform.document, estates.load(ESTATES / "acme.yaml")) as customer:
        yield customer


@pytest.fixture
def busy(platform: PrivatePlatform) -> Iterator[Customer]:
    """The customer who asks for more than its share."""
    with provisioned(platform.document, estates.load(ESTATES / "acme.yaml")) as customer:
        yield customer


def test_busy_customer_hardly_slows_another_one(quiet: Customer, busy: Customer) -> None:
    load = Load(busy)
    with signed_in_browser(quiet) as browser:
        take_turn(browser, quiet, {})  # opens connections and prepares statements
        alone: Times = {}
        for _ in range(QUIET_TURNS):
            take_turn(browser, quiet, alone)
        meanwhile = asyncio.run(measured(browser, quiet, load))

    slower = {
        "dashboard": percentile(meanwhile["dashboard"], 95) / percentile(alone["dashboard"], 95),
        "analysis": statistics.median(meanwhile["analysis"]) / statistics.median(alone["analysis"]),
    }
    for what, most in MOST_SLOWER.items():
        assert slower[what] < most, f"{what}: {slower[what]:.1f} times slower; alone {alone}, under load {meanwhile}"
    # The load was what it should be, and the platform refused what is above the quotas.
    answers = load.answers
    assert answers["sign-in"].keys() <= {401, 503}
    assert {202, 429} <= answers["analysis"].keys() <= {202, 429, 503}
    assert {202} <= answers["onboarding"].keys() <= {202, 429, 503}
    assert answers["stream"] == {101: 50 * ROUNDS, 403: (STREAMS - 50) * ROUNDS}
    assert [sum(each.values()) for each in answers.values()] == [
        each * ROUNDS for each in (SIGN_INS, ANALYSES, ONBOARDINGS, STREAMS)
    ]


@contextmanager
def signed_in_browser(customer: Customer) -> Iterator[httpx.Client]:
    """The customer's session in the portal."""
    with httpx.Client(base_url=customer.seeded.portal_url, timeout=60) as browser:
        form = {"email": customer.seeded.email, "password": customer.seeded.password}
        assert browser.post("/login", data=form).status_code == 303
        yield browser


def take_turn(browser: httpx.Client, customer: Customer, times: Times) -> None:
    """Look at the dashboard some times, then analyze. None of it is refused."""
    for _ in range(DASHBOARDS_A_TURN):
        began = time.perf_counter()
        browser.get(f"/portal/customers/{customer.id}/dashboard").raise_for_status()
        times.setdefault("dashboard", []).append(time.perf_counter() - began)
    began = time.perf_counter()
    analysis = customer.wait_for_analysis(customer.start_analysis("cost"))
    times.setdefault("analysis", []).append(time.perf_counter() - began)
    assert analysis.status == "completed", analysis.error


async def measured(browser: httpx.Client, customer: Customer, load: "Load") -> Times:
    """Turns while the load lasts."""
    times: Times = {}

    def measure() -> None:
        while not load.over:
            take_turn(browser, customer, times)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load.run())
        tasks.create_task(asyncio.to_thread(measure))
    return times


class Load:
    """Rounds of requests of a customer, all of a round at once; `over` when all are answered."""

    def __init__(self, customer: Customer) -> None:
        self._customer = customer
        self.over = False
        self.answers: dict[str, Counter[int]] = {
            kind: Counter() for kind in ("sign-in", "analysis", "onboarding", "stream")
        }

    async def run(self) -> None:
        """In each round the accepted streams stay open until all else is answered."""
        url, token = self._customer.seeded.orchestrator_url, self._customer.http.headers["Authorization"]
        try:
            async with httpx.AsyncClient(
                base_url=url,
                headers={"Authorization": token},
                timeout=120,
                limits=httpx.Limits(max_connections=None),
            ) as http:
                for _ in range(ROUNDS):
                    streams = await asyncio.gather(*(self._open_stream() for _ in range(STREAMS)))
                    await asyncio.gather(
                        *(self._sign_in(http) for _ in range(SIGN_INS)),
                        *(self._post(http, "analysis", "analyze", {"agent_type": "cost"}) for _ in range(ANALYSES)),
                        *(self._post(http, "onboarding", "onboard", _account()) for _ in range(ONBOARDINGS)),
                    )
                    await asyncio.gather(*(stream.close() for stream in streams if stream is not None))
        finally:
            self.over = True

    async def _sign_in(self, http: httpx.AsyncClient) -> None:
        # Each as another user, so that no lockout spares the platform the hashing.
        body = {"username": f"nobody-{uuid.uuid4().hex}@example.com", "password": "a wrong password of 30 letters"}
        self.answers["sign-in"][(await http.post("/auth/login", json=body)).status_code] += 1

    async def _post(self, http: httpx.AsyncClient, kind: str, route: str, body: dict[str, Any]) -> None:
        answer = await http.post(f"/customers/{self._customer.id}/{route}", json=body)
        self.answers[kind][answer.status_code] += 1

    async def _open_stream(self) -> ClientConnection | None:
        address = f"{self._customer.seeded.orchestrator_url.replace('http', 'ws', 1)}/ws/customers/{self._customer.id}"
        token = self._customer.http.headers["Authorization"].removeprefix("Bearer ")
        offered = [Subprotocol(each) for each in (SUBPROTOCOL, bearer_subprotocol(token))]
        try:
            opened = await connect(address, subprotocols=offered, open_timeout=60)
        except InvalidStatus as refused:
            self.answers["stream"][refused.response.status_code] += 1
            return None
        self.answers["stream"][101] += 1
        return opened


def _account() -> dict[str, Any]:
    """The body of an onboarding of a new account."""
    role = f"arn:aws:iam::{random.randrange(10**11, 10**12)}:role/optiinfra"
    return {"cloud_provider": "aws", "region": "us-east-1", "iam_role_arn": role}
