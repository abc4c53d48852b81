"""One customer's migration as it ended, seen past the platform where that can be, and what is wrong with it. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optiinfra.api.recommendations import Optimization
from optiinfra.domain.optimization import FINAL, STEPS, undo_name


@dataclass(frozen=True)
class Ended:
    """How a migration ended.

    `before` and `running` are the estate's instances as (type, lifecycle), before and after; `wanted` those after a
    migration that was carried out. `spot_requests` are the states of all that were ever made, `orders` how many one
    migration needs. `fleet` is the gateway's own description.
    """

    optimization: Optimization
    events: Sequence[Mapping[str, Any]]
    before: Sequence[tuple[str, str]]
    wanted: Sequence[tuple[str, str]]
    running: Sequence[tuple[str, str]]
    spot_requests: Sequence[str]
    orders: int
    fleet: Mapping[str, Any]


@dataclass
class Faults:
    """What is wrong, in words, by kind."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.left_over)


def faults_of(ended: Ended) -> Faults:
    """A migration must be carried out or undone, wholly: nothing lost, done twice, or left over."""
    found, optimization = Faults(), ended.optimization
    done = [step.name for step in optimization.execution_steps]
    undone = [step.name for step in optimization.rollback_steps]
    carried_out = optimization.status == "completed"
    if optimization.status not in FINAL:
        found.lost.append(f"{optimization.id} is still {optimization.status}")
    elif optimization.status == "failed":
        found.lost.append(f"{optimization.id} failed: {optimization.result and optimization.result.error}")
    elif carried_out and done != list(STEPS["spot_migration"]):
        found.lost.append(f"{optimization.id} completed with the steps {done}")
    elif not carried_out and undone != [undo_name(step) for step in reversed(done)]:
        found.lost.append(f"{optimization.id} did {done} and undid {undone}")
    if dropped := ended.fleet["requests_dropped"]:
        found.lost.append(f"{dropped} requests were dropped")
    numbers = [event["seq"] for event in ended.events]
    if numbers != list(range(1, len(numbers) + 1)):
        found.lost.append(f"events are numbered {numbers}")
    told = Counter(
        (event["event_type"], event["step"]) for event in ended.events if event["optimization_id"] == optimization.id
    )
    found.doubled += [f"event {what} {step or ''} was told {n} times" for (what, step), n in told.items() if n > 1]
    found.doubled += [f"step {name} stands there {n} times" for name, n in Counter(done + undone).items() if n > 1]
    if len(ended.spot_requests) > ended.orders:
        found.doubled.append(f"{len(ended.spot_requests)} spot instances were ordered, {ended.orders} are needed")
    expected = Counter(ended.wanted if carried_out else ended.before)
    there = Counter(ended.running)
    found.left_over += [f"{n} x {kind} run besides" for kind, n in (there - expected).items()]
    found.lost += [f"{n} x {kind} do not run" for kind, n in (expected - there).items()]
    unready = [replica["replica_id"] for replica in ended.fleet["replicas"] if replica["state"] != "ready"]
    found.left_over += [f"replica {replica} is not ready" for replica in unready]
    return found
