"""`fairness`: how much one customer, at the limits of the platform, slows dashboard and analyses of another one.

Everything of both customers runs on this machine, so the ratios are higher than where agents, stores and browsers have
machines of their own, and vary from run to run.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context

import httpx

from testbed.figures import percentile
from tests.bench import bursts
from tests.helpers.customer import Customer

QUIET_TURNS, DASHBOARDS_A_TURN = 8, 5
MOST_SLOWER = {"dashboard": 4.0, "analysis": 3.0}
"""What is aimed at: the dashboard's 95th percentile, the median of analyses."""
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


@dataclass(frozen=True)
class Fairness:
    """Times of one customer, alone and during the other one's bursts, and how these were answered."""

    alone: Times
    meanwhile: Times
    answers: list[bursts.Answers]

    @property
    def slower(self) -> dict[str, float]:
        """How many times longer it took."""
        return {
            "dashboard": percentile(self.meanwhile["dashboard"], 95) / percentile(self.alone["dashboard"], 95),
            "analysis": statistics.median(self.meanwhile["analysis"]) / statistics.median(self.alone["analysis"]),
        }


def measure(quiet: Customer, busy: Customer, count: int) -> Fairness:
    """Time one customer alone, then during this many bursts of the other one."""
    token = busy.http.headers["Authorization"].removeprefix("Bearer ")
    sender = bursts.Sender(busy.seeded.orchestrator_url, busy.id, token)
    with _signed_in_browser(quiet) as browser, ProcessPoolExecutor(1, get_context("spawn")) as elsewhere:
        _take_turns(browser, quiet, lambda turns: turns >= 1)  # opens connections and prepares statements
        alone = _take_turns(browser, quiet, lambda turns: turns >= QUIET_TURNS)
        sent = [elsewhere.submit(bursts.send_burst, sender) for _ in range(count)]
        meanwhile = _take_turns(browser, quiet, lambda _: all(each.done() for each in sent))
        return Fairness(alone, meanwhile, [each.result() for each in sent])


@contextmanager
def _signed_in_browser(customer: Customer) -> Iterator[httpx.Client]:
    """The customer's session in the portal."""
    with httpx.Client(base_url=customer.seeded.portal_url, timeout=60) as browser:
        form = {"email": customer.seeded.email, "password": customer.seeded.password}
        assert browser.post("/login", data=form).status_code == 303
        yield browser


def _take_turns(browser: httpx.Client, customer: Customer, enough: Callable[[int], bool]) -> Times:
    """Look at the dashboard some times, then analyze, until that was enough. None of it may be refused."""
    times: Times = {"dashboard": [], "analysis": []}
    while not enough(len(times["analysis"])):
        for _ in range(DASHBOARDS_A_TURN):
            began = time.perf_counter()
            browser.get(f"/portal/customers/{customer.id}/dashboard").raise_for_status()
            times["dashboard"].append(time.perf_counter() - began)
        began = time.perf_counter()
        analysis = customer.wait_for_analysis(customer.start_analysis("cost"))
        times["analysis"].append(time.perf_counter() - began)
        assert analysis.status == "completed", analysis.error
    return times
