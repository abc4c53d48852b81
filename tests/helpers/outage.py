"""What callers see while a store or the cloud is unavailable."""

import time
from collections.abc import Callable

import httpx

from testbed.waiting import stretched
from tests.helpers.customer import Customer

OUTAGE_SECONDS = 10.0
ANSWER_SECONDS = 12.0
"""Deadline of every call: the platform's own eight seconds, and a margin for a busy machine."""


def assert_answered_throughout(customer: Customer, calls: list[Callable[[httpx.Client], httpx.Response]]) -> int:
    """Repeat the calls throughout an outage; returns the number of 503 responses.

    Each call must be answered in time: with success, or with a 503 that names the store and has `Retry-After`.
    """
    unavailable, allowed = 0, stretched(ANSWER_SECONDS)
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
                    unavailable += 1
                    assert answer.headers["content-type"] == "application/problem+json", what
                    assert int(answer.headers["retry-after"]) > 0
    return unavailable
