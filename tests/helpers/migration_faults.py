"""One migration as it ended, seen past the platform where that can be, and what is wrong with it. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from optiinfra.api.recommendations import Optimization
from optiinfra.domain.optimization import STEPS, StepStatus, rollback_step

Kind = tuple[str, str]
"""An instance's type and lifecycle."""


@dataclass(frozen=True)
class Estate:
    """The customer's running instances, and the deployment as its own gateway describes it."""

    running: Sequence[Kind]
    fleet: Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """How a migration ended that was to end as `wanted`.

    `optimizations` are the ids of all that the customer has, `spot_requests` the states of all that were ever made, and
    `orders` how many one migration needs.
    """

    wanted: Literal["completed", "rolled_back"]
    optimization: Optimization
    optimizations: Sequence[str]
    events: Sequence[Mapping[str, Any]]
    spot_requests: Sequence[str]
    orders: int
    before: Estate
    after: Estate
    moved: Kind
    to: Kind


@dataclass
class Faults:
    """What is wrong, in words, by kind."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.left_over)


def faults_of(ended: Ended) -> Faults:
    """A migration must be carried out, or undone, wholly: nothing lost, done twice, or left over."""
    found = Faults()
    found.lost += [*_of_its_end(ended), *_of_its_steps(ended.optimization), *_untold(ended)]
    found.doubled += [*_told_twice(ended), *_done_twice(ended)]
    carried_out = ended.optimization.status == "completed"
    expected = Counter(ended.to if kind == ended.moved and carried_out else kind for kind in ended.before.running)
    there = Counter(ended.after.running)
    found.left_over += [f"{n} x {kind} run besides" for kind, n in (there - expected).items()]
    found.lost += [f"{n} x {kind} do not run" for kind, n in (expected - there).items()]
    alive = [state for state in ended.spot_requests if state in ("open", "active")]
    if len(alive) > (ended.orders if carried_out else 0):
        found.left_over.append(f"spot requests are {', '.join(alive)}")
    before, after = ended.before.fleet, ended.after.fleet
    if dropped := after["requests_dropped"] - before["requests_dropped"]:
        found.lost.append(f"{dropped} requests were dropped")
    states = [replica["state"] for replica in after["replicas"]]
    if len(states) < len(before["replicas"]):
        found.lost.append(f"replicas are {states}, there were {len(before['replicas'])}")
    elif states != ["ready"] * len(before["replicas"]):
        found.left_over.append(f"replicas are {states}, there were {len(before['replicas'])}")
    return found


def _of_its_end(ended: Ended) -> Iterator[str]:
    """Whether it ended as it was to, and what should be known of it then."""
    optimization, result = ended.optimization, ended.optimization.result
    if optimization.status != ended.wanted or result is None:
        yield f"it was to be {ended.wanted} and is {optimization.status}: {result and result.error}"
    elif optimization.status == "completed":
        if result.error or result.actual_savings is None:
            yield f"what it brought is not known: {result.error}"
        if "outcome_stored" not in {event["event_type"] for event in ended.events}:
            yield "its outcome is not kept"
    elif not result.original_state_restored:
        yield "the original state is not restored"
    elif ended.after.fleet["weights"] != ended.before.fleet["weights"]:
        yield f"weights are {ended.after.fleet['weights']}, they were {ended.before.fleet['weights']}"


def _of_its_steps(optimization: Optimization) -> Iterator[str]:
    done = [step.name for step in optimization.execution_steps]
    undone = [step.name for step in optimization.rollback_steps]
    if optimization.status == "completed" and done != list(STEPS["spot_migration"]):
        yield f"it completed with the steps {done}"
    if optimization.status == "rolled_back" and undone != [rollback_step(step) for step in reversed(done)]:
        yield f"it did {done} and undid {undone}"
    ends = {step.name: step.status for step in (*optimization.execution_steps, *optimization.rollback_steps)}
    if optimization.status == "rolled_back" and done:
        ends[done[-1]] = StepStatus.COMPLETED  # the one that failed
    if open_ends := {name: status for name, status in ends.items() if status != StepStatus.COMPLETED}:
        yield f"steps stand at {open_ends}"


def _untold(ended: Ended) -> Iterator[str]:
    """Whether every event is there: numbers without a gap, and the beginning and end of all that was done."""
    numbers = [event["seq"] for event in ended.events]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"events are numbered {numbers}"
    told = _told(ended)
    for step in (*ended.optimization.execution_steps, *ended.optimization.rollback_steps):
        for wanted in (("step_started",), ("step_completed", "step_failed")):
            if not any((event, step.name) in told for event in wanted):
                yield f"no event {' or '.join(wanted)} tells of {step.name}"
    for wanted in (("optimization_started",), ("optimization_completed", "optimization_rolled_back")):
        if not any((event, None) in told for event in wanted):
            yield f"no event {' or '.join(wanted)} tells of it"


def _told_twice(ended: Ended) -> Iterator[str]:
    for (event, step), times in _told(ended).items():
        if times > 1:
            yield f"event {event} {step or ''} was told {times} times"


def _told(ended: Ended) -> Counter[tuple[str, str | None]]:
    mine = (event for event in ended.events if event["optimization_id"] == ended.optimization.id)
    return Counter((event["event_type"], event["step"]) for event in mine)


def _done_twice(ended: Ended) -> Iterator[str]:
    optimization = ended.optimization
    names = Counter(step.name for step in (*optimization.execution_steps, *optimization.rollback_steps))
    for name, times in names.items():
        if times > 1:
            yield f"step {name} stands there {times} times"
    if len(ended.spot_requests) > ended.orders:
        yield f"{len(ended.spot_requests)} spot instances were ordered, {ended.orders} are needed"
    if list(ended.optimizations) != [optimization.id]:
        yield f"the customer's optimizations are {list(ended.optimizations)}"
