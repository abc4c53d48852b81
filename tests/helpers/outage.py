"""What callers see while a store or the cloud is away."""

import time
from collections.abc import Callable

import httpx

from testbed.waiting import stretched
from tests.helpers.customer import Customer

OUTAGE_SECONDS = 10.0
ANSWER_SECONDS = 12.0
"""Within which every call must be answered: the platform's own eight, and room on a busy machine."""


def assert_answered_throughout(customer: Customer, calls: list[Callable[[httpx.Client], httpx.Response]]) -> int:
    """Call again and again for as long as an outage lasts; returns how often the answer was that a store is away.

    Each call is answered in time: with success, or with a 503 that says what is away and when to try again.
    """
    away, allowed = 0, stretched(ANSWER_SECONDS)
    ends = time.monotonic() + OUTAGE_SECONDS
    headers = {"Authorization": customer.http.headers["Authorization"]}
    with httpx.Client(base_url=customer.http.base_url, headers=headers, timeout=2 * allowed) as http:
        while time.monotonic() < ends:
            for call in calls:
                began = time.monotonic()
                answer = call(http)
                took = time.monotonic() - began
                what = f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:200]}"
                assert took < allowed, f"answered after {took:.1f} s: {what}"
                assert answer.is_success or answer.status_code == 503, what
                if answer.status_code == 503:
                    away += 1
                    assert answer.headers["content-type"] == "application/problem+json", what
                    assert int(answer.headers["retry-after"]) > 0
    return away
