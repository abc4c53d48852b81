"""`crash`: customers migrate and undo, side by side, while one process after another is killed at random moments."""

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from fixtures import estates
from testbed.health import Row
from testbed.waiting import wait_until
from tests.bench.migrations import Ended, Faults, faults_of
from tests.helpers import cloud_truth
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, provisioned
from tests.helpers.migration import MOVED, finished, migrate, persistently, spoiled
from tests.helpers.private_platform import PrivatePlatform

VICTIMS = {
    "orchestrator": ("optiinfra.orchestrator", 8),
    "runtime": ("optiinfra.runtime", 4),
    "cost-agent": ("optiinfra.agents.cost_agent", 1),
    "performance-agent": ("optiinfra.agents.perf_agent", 3),
    "application-agent": ("optiinfra.agents.app_agent", 3),
    "supervisor": ("supervisor.supervisord", 1),
}
"""What is killed: the module that it runs, and how often it is chosen."""
LONGEST_PAUSE = 3.0
"""Seconds at most from everything being there again to the next crash."""
BACK_SECONDS = 60.0
UNDONE_SHARE = 1 / 3
"""Of the migrations, those that are made to fail at their last stage."""
MOVING, SPOT = ("p4de.24xlarge", "on-demand"), ("p4de.24xlarge", "spot")


@dataclass
class Score:
    """What came of it. Seconds until a killed process was there again, by victim."""

    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[Faults] = field(default_factory=list)
    crashes_each: list[int] = field(default_factory=list)

    @property
    def crashes(self) -> int:
        """How often something was killed."""
        return sum(map(len, self.recoveries.values()))

    def document(self) -> dict[str, Any]:
        """The figures, for a report."""
        return {
            "crashes": self.crashes,
            "migrations": dict(self.ends),
            "crashes_a_migration": sum(self.crashes_each) / max(1, len(self.crashes_each)),
            "lost": [text for found in self.faults for text in found.lost],
            "doubled": [text for found in self.faults for text in found.doubled],
            "left_over": [text for found in self.faults for text in found.left_over],
            "recovery_seconds": {
                victim: {"times": len(took), "median": round(median(took), 2), "longest": round(max(took), 2)}
                for victim, took in self.recoveries.items()
            },
        }


class Crashes:
    """Kills while customers are at work; `say` hears of each crash as it is over.

    Customers come and go between crashes: what is tried is their analyses, migrations and undoings.
    """

    def __init__(self, platform: PrivatePlatform, seed: int, say: Callable[[str], None]) -> None:
        self._platform, self._random, self._say = platform, random.Random(seed), say
        self._over = threading.Event()
        self._state = threading.Condition()
        self._at_work = self._moving = 0
        self._crashing = False
        self.score = Score()

    def run(self, runs: int, customers: int) -> Score:
        """Crash `runs` times while so many customers are at work, and let what was begun come to its end."""
        with ThreadPoolExecutor(customers) as pool:
            working = [pool.submit(self._work) for _ in range(customers)]
            try:
                for number in range(1, runs + 1):
                    self._crash(number, working)
            finally:
                self._over.set()
            for each in working:
                each.result()
        return self.score

    def _crash(self, number: int, working: list[Future[None]]) -> None:
        victim = self._random.choices(list(VICTIMS), [weight for _, weight in VICTIMS.values()])[0]
        # The moment is what is random here: nothing is waited for.
        self._over.wait(self._random.uniform(0.0, LONGEST_PAUSE))

        def somebody_is_at_work() -> bool:
            for each in working:
                if each.done():
                    each.result()  # raises what ended it
            with self._state:
                self._crashing = self._at_work > 0 and self._moving == 0
            return self._crashing

        wait_until(somebody_is_at_work, "a migration to be under way", 180, poll=0.01)
        began = time.monotonic()
        if victim == "supervisor":
            self._platform.kill_supervisor()
        else:
            self._platform.kill(VICTIMS[victim][0])
            wait_until(lambda: self._platform.row(victim), f"{victim} to be back", BACK_SECONDS, accept=is_healthy)
        took = time.monotonic() - began
        with self._state:
            self._crashing = False
            self._state.notify_all()
        self.score.recoveries[victim].append(took)
        over = sum(self.score.ends.values())
        self._say(f"{number}: {victim} killed, well again after {took:.1f} s; {over} migrations over")

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """While a customer comes or goes nobody is killed."""
        with self._state:
            self._state.wait_for(lambda: not self._crashing)
            self._moving += 1
        try:
            yield
        finally:
            with self._state:
                self._moving -= 1

    @contextmanager
    def _customer(self) -> Iterator[Customer]:
        """A customer of one's own, who comes and goes undisturbed."""
        with ExitStack() as stay:
            with self._undisturbed():
                customer = stay.enter_context(provisioned(self._platform.document, estates.load(ESTATES / "acme.yaml")))
            yield customer
            with self._undisturbed():
                stay.close()

    def _work(self) -> None:
        while not self._over.is_set():
            with self._customer() as customer:
                self._migrate(customer)

    def _migrate(self, customer: Customer) -> None:
        before = cloud_truth.running(customer.seeded)
        with self._state:
            undoing = self._random.random() < UNDONE_SHARE
            self._at_work += 1
        crashes = self.score.crashes
        try:
            optimization = finished(customer, spoiled(customer) if undoing else migrate(customer))
        finally:
            with self._state:
                self._at_work -= 1
        found = faults_of(
            Ended(
                optimization=optimization,
                events=persistently(lambda: customer.get(f"/customers/{customer.id}/events", limit=1000)),
                before=before,
                wanted=[SPOT if kind == MOVING else kind for kind in before],
                running=cloud_truth.running(customer.seeded),
                spot_requests=cloud_truth.spot_requests(customer.seeded),
                orders=before.count(MOVING),
                fleet=customer.fleet(MOVED),
            )
        )
        with self._state:
            self.score.ends[f"{optimization.status}, as it had to be" if undoing else optimization.status] += 1
            self.score.crashes_each.append(self.score.crashes - crashes)
            if found:
                self.score.faults.append(found)


def is_healthy(row: Row) -> bool:
    """Whether a part is well."""
    return row.status == "healthy"
