"""Memory: customers that came and went leave nothing behind in the orchestrator."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from testbed.waiting import stretched
from tests.helpers.private_platform import PrivatePlatform, private_platform_over
from tests.helpers.runtime import connected_runtime, customer_without_fleet, deployment

pytestmark = pytest.mark.timeout(stretched(300), func_only=True)

WARM_UP, CUSTOMERS, AT_ONCE = 16, 200, 8
MOST_GROWTH = 50 * 1024**2
ORCHESTRATOR = "optiinfra.orchestrator"


@pytest.fixture
def platform(environment: dict[str, Any]) -> Iterator[PrivatePlatform]:
    """Without coverage, whose data grow with what is executed."""
    with private_platform_over(environment, f"memory-{os.getpid()}", proxied=(), coverage=False) as platform:
        yield platform


def test_orchestrator_after_200_customers_came_and_went_holds_no_more_memory(platform: PrivatePlatform) -> None:
    process = platform.process(ORCHESTRATOR)
    # What is loaded or opened once, such as modules, service descriptions and connections, does not count.
    come_and_go(platform, WARM_UP)
    before = process.memory_info().rss
    come_and_go(platform, CUSTOMERS)
    assert platform.process(ORCHESTRATOR) == process, "the orchestrator was restarted"
    grown = process.memory_info().rss - before
    assert grown <= MOST_GROWTH, f"{CUSTOMERS} customers left {grown / 1024**2:.0f} MB behind"


def come_and_go(platform: PrivatePlatform, count: int) -> None:
    """Have customers sign up, connect an account and a runtime, analyze, and be deleted, some at once."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for done in [threads.submit(use_once, platform.document) for _ in range(count)]:
            done.result()


def use_once(document: dict[str, Any]) -> None:
    with customer_without_fleet(document) as customer, connected_runtime(customer) as runtime:
        assert customer.onboard().status == "discovered"
        runtime.report(deployment("chat", ["i-0123456789abcdef0"], "g5.xlarge"))
        with runtime.working():
            analysis = customer.wait_for_analysis(customer.start_analysis("cost"))
        assert analysis.status == "completed", analysis.error
