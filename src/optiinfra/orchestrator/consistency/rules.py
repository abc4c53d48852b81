"""What dangles, told from what stores and clouds were seen to hold. Pure.

Copies and references are listed before what they refer to: what comes into being meanwhile refers to what was there
before it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from optiinfra.api.consistency import Dangling
from optiinfra.clouds.protocol import CUSTOMER_TAG, STEP_TAG, CloudInstance
from optiinfra.domain.optimization import FINAL, is_left_over

UNREACHABLE = "unreachable"
"""Kind under which a store or cloud account that cannot be asked is reported."""

CLOUD_REMEMBERS = timedelta(minutes=55)
"""How long EC2 surely shows an instance that has ended: about an hour."""


@dataclass(frozen=True, slots=True)
class Account:
    """A cloud account as PostgreSQL knows it."""

    id: str
    customer_id: str
    provider: str
    region: str


@dataclass(frozen=True, slots=True)
class CloudView:
    """What an account holds: its instances, and the tags of what is ordered for a step and not there yet, by its id."""

    account: Account
    instances: Sequence[CloudInstance]
    orders: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class PlacedReplica:
    """A living replica as its gateway last described it."""

    replica_id: str
    instance_id: str
    deployment_id: str
    customer_id: str
    provider: str
    region: str


@dataclass(frozen=True, slots=True)
class RunningInstance:
    """An instance that PostgreSQL calls running."""

    instance_id: str
    account_id: str
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Known:
    """What there is, by PostgreSQL: deployments as (customer, deployment), outcomes' customers, optimizations' states.

    `agents` are those whose key may be in Redis.
    """

    customers: Collection[str] = frozenset()
    deployments: Collection[tuple[str, str]] = frozenset()
    outcomes: Mapping[str, str] = field(default_factory=dict)
    optimizations: Mapping[str, str] = field(default_factory=dict)
    agents: Collection[str] = frozenset()


def series_of_nobody(table: str, owners: Iterable[tuple[str, str]], known: Known) -> list[Dangling]:
    """Rows of a ClickHouse table, by (customer, deployment), of which either is unknown; '' is the whole estate."""
    found = []
    for customer, deployment in sorted(owners):
        if customer not in known.customers:
            lacking = f"customer {customer}"
        elif deployment and (customer, deployment) not in known.deployments:
            lacking = f"deployment {deployment}"
        else:
            continue
        found.append(Dangling(store="clickhouse", kind=table, id=f"{customer}/{deployment}", refers_to=lacking))
    return found


def points_of_nothing(points: Mapping[str, tuple[str, str]], known: Known) -> list[Dangling]:
    """Qdrant's points, by id as (customer, optimization), whose outcome PostgreSQL does not hold for that customer."""
    return [
        Dangling(store="qdrant", kind="points", id=point, refers_to=f"outcome of {optimization} of {customer}")
        for point, (customer, optimization) in sorted(points.items())
        if known.outcomes.get(optimization) != customer
    ]


def outcomes_without_point(points: Mapping[str, tuple[str, str]], known: Known) -> list[Dangling]:
    """Outcomes that cannot be found by similarity. Those of optimizations under way are still being remembered."""
    remembered = {optimization for _, optimization in points.values()}
    return [
        Dangling(store="postgresql", kind="outcomes", id=optimization, refers_to=f"point of {optimization} in Qdrant")
        for optimization in sorted(known.outcomes)
        if optimization not in remembered and known.optimizations.get(optimization) in FINAL
    ]


def presence_of_nobody(present: Iterable[str], known: Known) -> list[Dangling]:
    """Redis's keys of agents that never registered, or left so long ago that their key should have expired."""
    return [
        Dangling(store="redis", kind="presence", id=agent, refers_to=f"registered agent {agent}")
        for agent in sorted(present)
        if agent not in known.agents
    ]


def made_for_steps(view: CloudView) -> dict[str, Mapping[str, str]]:
    """The tags, by id, of an account's living instances that were made for a step."""
    living = (one for one in view.instances if one.state != "terminated")
    return {one.instance_id: one.tags for one in living if STEP_TAG in one.tags}


def left_in_cloud(view: CloudView, known: Known) -> list[Dangling]:
    """Living instances and open orders of an account that were made for a step and should be gone.

    Those are: what was made for an optimization that does not exist, and what was to replace the instances of one that
    was rolled back. One that failed is not tidied up: it says so itself. What is tagged for another customer is what
    that customer left with.
    """
    found = []
    for kind, tagged in (("step_instances", made_for_steps(view)), ("step_orders", view.orders)):
        for name, tags in sorted(tagged.items()):
            if tags.get(CUSTOMER_TAG, view.account.customer_id) != view.account.customer_id:
                continue
            optimization, _, what = tags[STEP_TAG].partition(":")
            state = known.optimizations.get(optimization)
            if state is None or is_left_over(what, state):
                lacking = f"optimization {optimization}" + (f", which is {state}" if state else "")
                found.append(Dangling(store="cloud", kind=kind, id=name, refers_to=lacking))
    return found


def vanished(running: Iterable[RunningInstance], views: Iterable[CloudView], now: datetime) -> list[Dangling]:
    """Instances that PostgreSQL calls running and their account does not know, though it was seen there lately.

    The inventory is as fresh as its last refresh. One that the cloud still shows, stopped or terminated, has changed
    since: stale. One that it does not show at all may have ended and been forgotten, unless it was seen within the time
    that clouds remember: then there never was such an instance.
    """
    shown = {view.account.id: {instance.instance_id for instance in view.instances} for view in views}
    return [
        Dangling(
            store="postgresql",
            kind="running_instances",
            id=one.instance_id,
            refers_to=f"instance {one.instance_id} of account {one.account_id}",
        )
        for one in running
        if one.account_id in shown
        and one.instance_id not in shown[one.account_id]
        and now - one.seen_at < CLOUD_REMEMBERS
    ]


def unplaced(
    replicas: Iterable[PlacedReplica], views: Sequence[CloudView], accounts: Iterable[Account]
) -> list[Dangling]:
    """Replicas on instances that no account of their customer in that region has, or had lately.

    Without an account there, or while one of them cannot be asked, nothing can be said.
    """
    shown: dict[tuple[str, str, str], set[str]] = {}
    for view in views:
        here = shown.setdefault(_place(view.account), set())
        here |= {instance.instance_id for instance in view.instances}
    seen = {view.account.id for view in views}
    unseen = {_place(account) for account in accounts if account.id not in seen}
    return [
        Dangling(
            store="postgresql",
            kind="replicas",
            id=f"{one.deployment_id}/{one.replica_id}",
            refers_to=f"instance {one.instance_id}",
        )
        for one in replicas
        if _place(one) not in unseen and one.instance_id not in shown.get(_place(one), {one.instance_id})
    ]


def confirmed(first: Collection[Dangling], second: Iterable[Dangling]) -> list[Dangling]:
    """What dangled at both looks: the rest was being made, or being taken away, at the first.

    What could not be asked is what could not be asked at last; at the second look that includes what the first gave up.
    """
    return [one for one in second if one in first or one.kind == UNREACHABLE]


def _place(where: Account | PlacedReplica) -> tuple[str, str, str]:
    return where.customer_id, where.provider, where.region
