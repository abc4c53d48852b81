"""What must be true of a spot migration after its end, whatever failed meanwhile. Pure functions over observations."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from optiinfra.api.recommendations import Optimization
from optiinfra.domain.optimization import STEPS, StepStatus, rollback_step
from tests.helpers.cloud_state import InstanceKind


@dataclass(frozen=True)
class ObservedEstate:
    """The customer's running instances, and the deployment as its own gateway describes it."""

    running: Sequence[InstanceKind]
    fleet: Mapping[str, Any]


@dataclass(frozen=True)
class FinishedMigration:
    """A migration that should have ended as `expected`, with everything observed about it.

    `optimizations` are the ids of all optimizations of the customer, `spot_requests` the states of all spot requests
    ever made, `instance_count` the number of instances that one migration replaces.
    """

    expected: Literal["completed", "rolled_back"]
    optimization: Optimization
    optimizations: Sequence[str]
    events: Sequence[Mapping[str, Any]]
    spot_requests: Sequence[str]
    instance_count: int
    before: ObservedEstate
    after: ObservedEstate
    source: InstanceKind
    target: InstanceKind


@dataclass
class Violations:
    """Descriptions of what is wrong, by kind."""

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.duplicated or self.left_over)


def find_violations(migration: FinishedMigration) -> Violations:
    """A migration is completed or rolled back as a whole: nothing is lost, duplicated or left over."""
    found = Violations()
    found.lost += [
        *_wrong_result(migration),
        *_wrong_steps(migration.optimization),
        *_missing_events(migration),
    ]
    found.duplicated += [*_duplicate_events(migration), *_duplicate_actions(migration)]
    completed = migration.optimization.status == "completed"
    expected = Counter(
        migration.target if kind == migration.source and completed else kind for kind in migration.before.running
    )
    running = Counter(migration.after.running)
    found.left_over += [f"{n} x {kind} run in addition" for kind, n in (running - expected).items()]
    found.lost += [f"{n} x {kind} do not run" for kind, n in (expected - running).items()]
    open_requests = [state for state in migration.spot_requests if state in ("open", "active")]
    if len(open_requests) > (migration.instance_count if completed else 0):
        found.left_over.append(f"spot requests are {', '.join(open_requests)}")
    before, after = migration.before.fleet, migration.after.fleet
    if dropped := after["requests_dropped"] - before["requests_dropped"]:
        found.lost.append(f"{dropped} requests were dropped")
    states = [replica["state"] for replica in after["replicas"]]
    if len(states) < len(before["replicas"]):
        found.lost.append(f"replicas are {states}, there were {len(before['replicas'])}")
    elif states != ["ready"] * len(before["replicas"]):
        found.left_over.append(f"replicas are {states}, there were {len(before['replicas'])}")
    return found


def _wrong_result(migration: FinishedMigration) -> Iterator[str]:
    """The status is the expected one, and the result holds what that status requires."""
    optimization, result = migration.optimization, migration.optimization.result
    if optimization.status != migration.expected or result is None:
        yield f"expected {migration.expected}, is {optimization.status}: {result and result.error}"
    elif optimization.status == "completed":
        if result.error or result.actual_savings is None:
            yield f"the savings were not measured: {result.error}"
        if "outcome_stored" not in {event["event_type"] for event in migration.events}:
            yield "the outcome was not stored"
    elif not result.original_state_restored:
        yield "the original state was not restored"
    elif migration.after.fleet["weights"] != migration.before.fleet["weights"]:
        yield f"weights are {migration.after.fleet['weights']}, they were {migration.before.fleet['weights']}"


def _wrong_steps(optimization: Optimization) -> Iterator[str]:
    executed = [step.name for step in optimization.execution_steps]
    rolled_back = [step.name for step in optimization.rollback_steps]
    if optimization.status == "completed" and executed != list(STEPS["spot_migration"]):
        yield f"completed with the steps {executed}"
    if optimization.status == "rolled_back" and rolled_back != [rollback_step(step) for step in reversed(executed)]:
        yield f"executed {executed}, rolled back {rolled_back}"
    statuses = {step.name: step.status for step in (*optimization.execution_steps, *optimization.rollback_steps)}
    if optimization.status == "rolled_back" and executed:
        statuses[executed[-1]] = StepStatus.COMPLETED  # the one that failed
    if incomplete := {name: status for name, status in statuses.items() if status != StepStatus.COMPLETED}:
        yield f"incomplete steps: {incomplete}"


def _missing_events(migration: FinishedMigration) -> Iterator[str]:
    """Event numbers have no gap; the optimization and each of its steps have a start and an end event."""
    numbers = [event["seq"] for event in migration.events]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"events are numbered {numbers}"
    counts = _event_counts(migration)
    for step in (*migration.optimization.execution_steps, *migration.optimization.rollback_steps):
        for wanted in (("step_started",), ("step_completed", "step_failed")):
            if not any((event, step.name) in counts for event in wanted):
                yield f"no event {' or '.join(wanted)} for step {step.name}"
    for wanted in (("optimization_started",), ("optimization_completed", "optimization_rolled_back")):
        if not any((event, None) in counts for event in wanted):
            yield f"no event {' or '.join(wanted)}"


def _duplicate_events(migration: FinishedMigration) -> Iterator[str]:
    for (event, step), times in _event_counts(migration).items():
        if times > 1:
            yield f"event {event} {step or ''} was recorded {times} times"


def _event_counts(migration: FinishedMigration) -> Counter[tuple[str, str | None]]:
    own = (event for event in migration.events if event["optimization_id"] == migration.optimization.id)
    return Counter((event["event_type"], event["step"]) for event in own)


def _duplicate_actions(migration: FinishedMigration) -> Iterator[str]:
    optimization = migration.optimization
    names = Counter(step.name for step in (*optimization.execution_steps, *optimization.rollback_steps))
    for name, times in names.items():
        if times > 1:
            yield f"step {name} is listed {times} times"
    if len(migration.spot_requests) > migration.instance_count:
        yield f"{len(migration.spot_requests)} spot instances were requested for {migration.instance_count}"
    if list(migration.optimizations) != [optimization.id]:
        yield f"the customer's optimizations are {list(migration.optimizations)}"
