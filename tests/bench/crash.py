"""`crash`: customers migrate and undo, side by side, while one process after another is killed at random moments."""

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from random import Random
from statistics import median
from typing import Any

import httpx

from fixtures import estates
from testbed.waiting import WaitTimeoutError, stretched, wait_until
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, provisioned
from tests.helpers.migration import (
    check_migration,
    observe,
    start_failing_migration,
    start_migration,
    wait_for_optimization,
)
from tests.helpers.migration_checks import Violations
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


@dataclass
class Score:
    """What came of it. Seconds until a killed process was there again, by victim."""

    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[Violations] = field(default_factory=list)
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
            "duplicated": [text for found in self.faults for text in found.duplicated],
            "left_over": [text for found in self.faults for text in found.left_over],
            "recovery_seconds": {
                victim: {"times": len(took), "median": round(median(took), 2), "longest": round(max(took), 2)}
                for victim, took in self.recoveries.items()
            },
        }


class Crashes:
    """Kills while customers are at work; `say` hears of each crash as it is over.

    Customers come and go between crashes: what is tried is their analyses, migrations and undoings. What goes wrong
    with one is counted, and the next one comes.
    """

    def __init__(self, platform: PrivatePlatform, seed: int, say: Callable[[str], None]) -> None:
        self._platform, self._seed, self._random, self._say = platform, seed, Random(seed), say
        self._over = threading.Event()
        self._state = threading.Condition()
        self._at_work = self._moving = 0
        self._crashing = False
        self.score = Score()

    def run(self, runs: int, customers: int) -> None:
        """Crash `runs` times while so many customers are at work, and let the migrations that started end."""
        with ThreadPoolExecutor(customers) as pool:
            working = [pool.submit(self._work, Random(self._seed + number)) for number in range(1, customers + 1)]
            try:
                for number in range(1, runs + 1):
                    self._crash(number)
            finally:
                self._over.set()
            for each in working:
                each.result()

    def _crash(self, number: int) -> None:
        victim = self._random.choices(list(VICTIMS), [weight for _, weight in VICTIMS.values()])[0]
        # The moment is what is random here: nothing is waited for.
        self._over.wait(self._random.uniform(0.0, LONGEST_PAUSE))

        def somebody_is_at_work() -> bool:
            with self._state:
                self._crashing = self._at_work > 0 and self._moving == 0
            return self._crashing

        wait_until(somebody_is_at_work, "a migration to be under way", 180, poll=0.01)
        try:
            began = time.monotonic()
            self._kill(victim)
            took = time.monotonic() - began
        finally:
            with self._state:
                self._crashing = False
                self._state.notify_all()
        self.score.recoveries[victim].append(took)
        over = sum(self.score.ends.values())
        self._say(f"{number}: {victim} killed, well again after {took:.1f} s; {over} migrations over")

    def _kill(self, victim: str) -> None:
        """Kill, and return once the victim does its work again."""
        if victim == "supervisor":
            self._platform.kill_supervisor()
            return
        well_again = WORKS[victim](self._platform) if victim in WORKS else lambda: True
        self._platform.kill(VICTIMS[victim][0])
        wait_until(
            lambda: self._platform.row(victim).status == "healthy" and well_again(),
            f"{victim} to be back",
            BACK_SECONDS,
            transient=(httpx.HTTPError,),
            poll=0.05,
        )

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """While a customer comes or goes nobody is killed."""
        with self._state:
            if not self._state.wait_for(lambda: not self._crashing, stretched(2 * BACK_SECONDS)):
                raise WaitTimeoutError("waited for a crash to be over; it is not")
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

    def _work(self, chance: Random) -> None:
        while not self._over.is_set():
            try:
                with self._customer() as customer:
                    self._migrate(customer, undoing=chance.random() < UNDONE_SHARE)
            except Exception as error:  # whatever it is, a customer of the platform's met it
                with self._state:
                    self.score.ends["broken off"] += 1
                    self.score.faults.append(Violations(lost=[f"{type(error).__name__}: {error}"]))

    def _migrate(self, customer: Customer, *, undoing: bool) -> None:
        before, crashes = observe(customer), self.score.crashes
        with self._state:
            self._at_work += 1
        try:
            start = start_failing_migration if undoing else start_migration
            optimization = wait_for_optimization(customer, start(customer))
        finally:
            with self._state:
                self._at_work -= 1
        found = check_migration(customer, optimization, before, "rolled_back" if undoing else "completed")
        with self._state:
            self.score.ends[f"{optimization.status}, as it had to be" if undoing else optimization.status] += 1
            self.score.crashes_each.append(self.score.crashes - crashes)
            if found:
                self.score.faults.append(found)


def _registered_anew(agent_type: str) -> Callable[[PrivatePlatform], Callable[[], bool]]:
    """The agent is in the registry under another id than now."""

    def ids(platform: PrivatePlatform) -> set[str]:
        headers = {"Authorization": f"Bearer {platform.document['credentials']['admin_token']}"}
        answer = httpx.get(f"{platform.document['urls']['orchestrator']}/orchestrator/agents", headers=headers)
        answer.raise_for_status()
        agents = answer.json()
        return {one["agent_id"] for one in agents if one["agent_type"] == agent_type and one["status"] == "active"}

    def now_known(platform: PrivatePlatform) -> Callable[[], bool]:
        before = ids(platform)
        return lambda: bool(ids(platform) - before)

    return now_known


def _tells_of_itself_anew(platform: PrivatePlatform) -> Callable[[], bool]:
    """The runtime writes its status again, and serves as many customers as before."""
    file = platform.described.state_dir / "runtime-status.json"
    before = json.loads(file.read_text())

    def told() -> bool:
        status = json.loads(file.read_text())
        return bool(status["at"] > before["at"] and status["customers"] >= before["customers"])

    return told


WORKS: dict[str, Callable[[PrivatePlatform], Callable[[], bool]]] = {
    "runtime": _tells_of_itself_anew,
    "cost-agent": _registered_anew("cost"),
    "performance-agent": _registered_anew("performance"),
    "application-agent": _registered_anew("application"),
}
"""What tells a victim's new life from what is left of the old one."""
