"""What share of a deployment's traffic its gateway gives to new replicas, at every moment of a rollout."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from optiinfra.api.recommendations import Step
from tests.helpers.customer import Customer

POLL_SECONDS = 0.05


class WatchedTraffic:
    """The weights of a deployment's replicas, as its gateway gave them from one moment to another."""

    def __init__(self, customer: Customer, deployment: str) -> None:
        self._customer, self._deployment = customer, deployment
        self._originals = set(customer.fleet(deployment)["weights"])
        self._seen: list[tuple[datetime, dict[str, float], datetime]] = []
        self._ended = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch until the end of the block."""
        watcher = threading.Thread(target=self._watch)
        watcher.start()
        try:
            yield
        finally:
            self._ended.set()
            watcher.join()

    def shares_during(self, step: Step) -> set[float]:
        """The shares that the replicas added since the start had during a completed step."""
        assert step.completed_at is not None, f"{step.name} is not completed"
        return {
            round(sum(weight for replica, weight in weights.items() if replica not in self._originals), 6)
            for asked, weights, answered in self._seen
            if step.started_at <= asked and answered <= step.completed_at
        }

    def _watch(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            asked = datetime.now(UTC)
            weights = self._customer.fleet(self._deployment)["weights"]
            self._seen.append((asked, weights, datetime.now(UTC)))
