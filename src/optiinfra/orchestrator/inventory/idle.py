"""Which instances are idle: they run, and no engine of any deployment runs on them. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from optiinfra.domain.recommendation import InstanceState


class KnownInstance(NamedTuple):
    """An instance as stored; `idle` tells whether it is stored as idle."""

    instance_id: str
    state: InstanceState
    idle: bool


@dataclass(frozen=True, slots=True)
class IdleChanges:
    """Ids of the instances that have become idle, and of those that no longer are."""

    began: set[str]
    ended: set[str]


def idle_changes(instances: Iterable[KnownInstance], hosting: Collection[str]) -> IdleChanges:
    """Compare the stored with the current state; `hosting` are the ids of instances with an engine that is not dead."""
    changes = IdleChanges(set(), set())
    for instance in instances:
        idle = instance.state == "running" and instance.instance_id not in hosting
        if idle and not instance.idle:
            changes.began.add(instance.instance_id)
        elif instance.idle and not idle:
            changes.ended.add(instance.instance_id)
    return changes
