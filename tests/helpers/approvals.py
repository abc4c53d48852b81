"""Recommendations as one user sees and decides them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from testbed.waiting import wait_until
from tests.helpers.accounts import Account
from tests.helpers.callers import bearer, call

REASON = "not before the holidays"
ENDED = ("completed", "rolled_back", "failed")
"""The states in which an optimization has ended."""


@dataclass(frozen=True)
class Approvals:
    """The recommendations of a customer, with the credential of one caller."""

    http: httpx.Client
    customer_id: str
    user: Account
    token: str

    def approve(self, recommendation_id: str) -> httpx.Response:
        """Approve a recommendation."""
        return self.http.post(f"/recommendations/{recommendation_id}/approve", headers=bearer(self.token))

    def reject(self, recommendation_id: str, reason: str = REASON) -> httpx.Response:
        """Reject a recommendation."""
        path, body = f"/recommendations/{recommendation_id}/reject", {"reason": reason}
        return self.http.post(path, headers=bearer(self.token), json=body)

    def statuses(self) -> dict[str, str]:
        """The status of each recommendation."""
        path = f"/customers/{self.customer_id}/recommendations?limit=1000"
        return {one["id"]: one["status"] for one in call(self.http, "GET", path, self.token)}

    def optimizations(self) -> dict[str, dict[str, Any]]:
        """The optimizations by the recommendation that each executes."""
        path = f"/customers/{self.customer_id}/optimizations?limit=1000"
        return {one["recommendation_id"]: one for one in call(self.http, "GET", path, self.token)}

    def events(self) -> list[dict[str, Any]]:
        """All events."""
        path = f"/customers/{self.customer_id}/events?limit=1000"
        found: list[dict[str, Any]] = call(self.http, "GET", path, self.token)
        return found

    def wait_for_end(self, recommendation_id: str) -> dict[str, Any]:
        """The optimization of a recommendation after its end."""
        return wait_until(
            lambda: self.optimizations()[recommendation_id],
            f"the optimization of {recommendation_id}",
            60,
            accept=lambda optimization: optimization["status"] in ENDED,
            poll=0.05,
        )

    def wait_until_idle(self, recommendations: Sequence[str]) -> None:
        """Wait until none of the recommendations is executed any more."""
        wait_until(
            lambda: {one["status"] for key, one in self.optimizations().items() if key in recommendations},
            f"the optimizations of {', '.join(recommendations)}",
            60,
            accept=lambda found: found <= set(ENDED),
            poll=0.05,
        )
