"""`crash`: customers migrate and roll back concurrently, while random processes are killed at random moments."""

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

PROCESSES = {
    "orchestrator": ("optiinfra.orchestrator", 8),
    "runtime": ("optiinfra.runtime", 4),
    "cost-agent": ("optiinfra.agents.cost_agent", 1),
    "performance-agent": ("optiinfra.agents.perf_agent", 3),
    "application-agent": ("optiinfra.agents.app_agent", 3),
    "supervisor": ("supervisor.supervisord", 1),
}
"""The processes to kill: module, and relative frequency."""
LONGEST_PAUSE = 3.0
"""Maximum seconds between a recovery and the next crash."""
RECOVERY_SECONDS = 60.0
FAILING_SHARE = 1 / 3
"""Share of the migrations that are made to fail at their last stage."""


@dataclass
class Score:
    """Results. `recoveries` are the seconds until a killed process worked again, by process."""

    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ends: Counter[str] = field(default_factory=Counter)
    violations: list[Violations] = field(default_factory=list)
    crashes_per_migration: list[int] = field(default_factory=list)

    @property
    def crashes(self) -> int:
        """Number of kills."""
        return sum(map(len, self.recoveries.values()))

    def document(self) -> dict[str, Any]:
        """The figures, for a report."""
        return {
            "crashes": self.crashes,
            "migrations": dict(self.ends),
            "crashes_per_migration": sum(self.crashes_per_migration) / max(1, len(self.crashes_per_migration)),
            "lost": [text for found in self.violations for text in found.lost],
            "duplicated": [text for found in self.violations for text in found.duplicated],
            "left_over": [text for found in self.violations for text in found.left_over],
            "recovery_seconds": {
                process: {"times": len(took), "median": round(median(took), 2), "longest": round(max(took), 2)}
                for process, took in self.recoveries.items()
            },
        }


class Crashes:
    """Kills processes while customers migrate; `log` is called after each recovery.

    Customers are provisioned and removed between crashes, so that only analyses, migrations and rollbacks are tested.
    An error of one customer is recorded, and the next customer follows.
    """

    def __init__(self, platform: PrivatePlatform, seed: int, log: Callable[[str], None]) -> None:
        self._platform, self._seed, self._random, self._log = platform, seed, Random(seed), log
        self._stopped = threading.Event()
        self._state = threading.Condition()
        self._migrating = self._provisioning = 0
        self._crashing = False
        self.score = Score()

    def run(self, runs: int, customers: int) -> None:
        """Crash `runs` times while this number of customers migrate; returns after the last migration has ended."""
        with ThreadPoolExecutor(customers) as pool:
            workers = [pool.submit(self._work, Random(self._seed + number)) for number in range(1, customers + 1)]
            try:
                for number in range(1, runs + 1):
                    self._crash(number)
            finally:
                self._stopped.set()
            for worker in workers:
                worker.result()

    def _crash(self, number: int) -> None:
        process = self._random.choices(list(PROCESSES), [weight for _, weight in PROCESSES.values()])[0]
        # A random moment, not a condition.
        self._stopped.wait(self._random.uniform(0.0, LONGEST_PAUSE))

        def claim_crash() -> bool:
            with self._state:
                self._crashing = self._migrating > 0 and self._provisioning == 0
            return self._crashing

        wait_until(claim_crash, "a migration in progress", 180, poll=0.01)
        try:
            began = time.monotonic()
            self._kill(process)
            took = time.monotonic() - began
        finally:
            with self._state:
                self._crashing = False
                self._state.notify_all()
        self.score.recoveries[process].append(took)
        over = sum(self.score.ends.values())
        self._log(f"{number}: {process} killed, recovered after {took:.1f} s; {over} migrations ended")

    def _kill(self, process: str) -> None:
        """Kill a process, and return when it works again."""
        if process == "supervisor":
            self._platform.kill_supervisor()
            return
        is_working = WORK_CHECKS[process](self._platform) if process in WORK_CHECKS else lambda: True
        self._platform.kill(PROCESSES[process][0])
        wait_until(
            lambda: self._platform.row(process).status == "healthy" and is_working(),
            f"{process} to recover",
            RECOVERY_SECONDS,
            transient=(httpx.HTTPError,),
            poll=0.05,
        )

    @contextmanager
    def _without_crashes(self) -> Iterator[None]:
        """No process is killed inside this context."""
        with self._state:
            if not self._state.wait_for(lambda: not self._crashing, stretched(2 * RECOVERY_SECONDS)):
                raise WaitTimeoutError("waited for the end of a crash")
            self._provisioning += 1
        try:
            yield
        finally:
            with self._state:
                self._provisioning -= 1

    @contextmanager
    def _customer(self) -> Iterator[Customer]:
        """A new customer; it is provisioned and removed without crashes."""
        with ExitStack() as removal:
            with self._without_crashes():
                customer = removal.enter_context(
                    provisioned(self._platform.document, estates.load(ESTATES / "acme.yaml"))
                )
            yield customer
            with self._without_crashes():
                removal.close()

    def _work(self, chance: Random) -> None:
        while not self._stopped.is_set():
            try:
                with self._customer() as customer:
                    self._migrate(customer, failing=chance.random() < FAILING_SHARE)
            except Exception as error:  # any error is one that a customer would have met
                with self._state:
                    self.score.ends["aborted"] += 1
                    self.score.violations.append(Violations(lost=[f"{type(error).__name__}: {error}"]))

    def _migrate(self, customer: Customer, *, failing: bool) -> None:
        before, crashes = observe(customer), self.score.crashes
        with self._state:
            self._migrating += 1
        try:
            start = start_failing_migration if failing else start_migration
            optimization = wait_for_optimization(customer, start(customer))
        finally:
            with self._state:
                self._migrating -= 1
        found = check_migration(customer, optimization, before, "rolled_back" if failing else "completed")
        with self._state:
            self.score.ends[f"{optimization.status}{' as intended' if failing else ''}"] += 1
            self.score.crashes_per_migration.append(self.score.crashes - crashes)
            if found:
                self.score.violations.append(found)


def _registers_again(agent_type: str) -> Callable[[PrivatePlatform], Callable[[], bool]]:
    """The check that the agent has registered with a new id."""

    def ids(platform: PrivatePlatform) -> set[str]:
        headers = {"Authorization": f"Bearer {platform.document['credentials']['admin_token']}"}
        answer = httpx.get(f"{platform.document['urls']['orchestrator']}/orchestrator/agents", headers=headers)
        answer.raise_for_status()
        agents = answer.json()
        return {one["agent_id"] for one in agents if one["agent_type"] == agent_type and one["status"] == "active"}

    def check(platform: PrivatePlatform) -> Callable[[], bool]:
        before = ids(platform)
        return lambda: bool(ids(platform) - before)

    return check


def _reports_again(platform: PrivatePlatform) -> Callable[[], bool]:
    """The check that the runtime writes its status again and serves as many customers as before."""
    file = platform.described.runtime_status
    before = json.loads(file.read_text())

    def reported() -> bool:
        status = json.loads(file.read_text())
        return bool(status["at"] > before["at"] and status["customers"] >= before["customers"])

    return reported


WORK_CHECKS: dict[str, Callable[[PrivatePlatform], Callable[[], bool]]] = {
    "runtime": _reports_again,
    "cost-agent": _registers_again("cost"),
    "performance-agent": _registers_again("performance"),
    "application-agent": _registers_again("application"),
}
"""By process: from the state before the kill, a check that the new process works."""
