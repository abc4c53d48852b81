"""Rules that decide which references dangle. Pure.

References must be listed before their targets. Otherwise one that is created in between seems to dangle.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from optiinfra.api.consistency import Dangling
from optiinfra.clouds.protocol import CUSTOMER_TAG, STEP_TAG, CloudInstance
from optiinfra.domain.optimization import FINAL, is_left_over

UNREACHABLE = "unreachable"
"""The kind of a store or cloud account that does not answer."""

TERMINATED_VISIBLE = timedelta(minutes=55)
"""How long EC2 certainly lists a terminated instance: it says about an hour."""


@dataclass(frozen=True, slots=True)
class Account:
    """A cloud account in PostgreSQL."""

    id: str
    customer_id: str
    provider: str
    region: str


@dataclass(frozen=True, slots=True)
class AccountContents:
    """The contents of a cloud account: its instances, and the tags of open spot requests by request id."""

    account: Account
    instances: Sequence[CloudInstance]
    requests: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class PlacedReplica:
    """A replica that is not dead, as its gateway last described it."""

    replica_id: str
    instance_id: str
    deployment_id: str
    customer_id: str
    provider: str
    region: str


@dataclass(frozen=True, slots=True)
class RunningInstance:
    """An instance that is running according to PostgreSQL."""

    instance_id: str
    account_id: str
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Known:
    """What exists in PostgreSQL: (customer, deployment) pairs, the customer of each outcome, the status of each
    optimization. `agents` are those that may have a key in Redis.
    """

    customers: Collection[str] = frozenset()
    deployments: Collection[tuple[str, str]] = frozenset()
    outcomes: Mapping[str, str] = field(default_factory=dict)
    optimizations: Mapping[str, str] = field(default_factory=dict)
    agents: Collection[str] = frozenset()


def dangling_series(table: str, owners: Iterable[tuple[str, str]], known: Known) -> list[Dangling]:
    """(customer, deployment) pairs of a ClickHouse table of which either is unknown; '' is the whole estate."""
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


def dangling_points(points: Mapping[str, tuple[str, str]], known: Known) -> list[Dangling]:
    """Qdrant's points without their outcome in PostgreSQL; `points` are (customer, optimization) by point id."""
    return [
        Dangling(store="qdrant", kind="points", id=point, refers_to=f"outcome of {optimization} of {customer}")
        for point, (customer, optimization) in sorted(points.items())
        if known.outcomes.get(optimization) != customer
    ]


def outcomes_without_point(points: Mapping[str, tuple[str, str]], known: Known) -> list[Dangling]:
    """Outcomes without a point in Qdrant. An unfinished optimization may still be about to store its point."""
    stored = {optimization for _, optimization in points.values()}
    return [
        Dangling(store="postgresql", kind="outcomes", id=optimization, refers_to=f"point of {optimization} in Qdrant")
        for optimization in sorted(known.outcomes)
        if optimization not in stored and known.optimizations.get(optimization) in FINAL
    ]


def dangling_presence(present: Iterable[str], known: Known) -> list[Dangling]:
    """Redis's keys of agents that never registered, or whose key should have expired since they deregistered."""
    return [
        Dangling(store="redis", kind="presence", id=agent, refers_to=f"registered agent {agent}")
        for agent in sorted(present)
        if agent not in known.agents
    ]


def step_instances(contents: AccountContents) -> dict[str, Mapping[str, str]]:
    """The tags by id of an account's instances that were created for a step and are not terminated."""
    existing = (one for one in contents.instances if one.state != "terminated")
    return {one.instance_id: one.tags for one in existing if STEP_TAG in one.tags}


def dangling_step_resources(contents: AccountContents, known: Known) -> list[Dangling]:
    """Instances and open spot requests that were created for a step and should be gone.

    These are the resources of an optimization that does not exist, and the target instances of one that was rolled
    back. A failed optimization is not cleaned up, and its result says so. Resources tagged for another customer are
    ignored: a former customer keeps their instances.
    """
    found = []
    for kind, tagged in (("step_instances", step_instances(contents)), ("step_spot_requests", contents.requests)):
        for name, tags in sorted(tagged.items()):
            if tags.get(CUSTOMER_TAG, contents.account.customer_id) != contents.account.customer_id:
                continue
            optimization, _, what = tags[STEP_TAG].partition(":")
            state = known.optimizations.get(optimization)
            if state is None or is_left_over(what, state):
                lacking = f"optimization {optimization}" + (f", which is {state}" if state else "")
                found.append(Dangling(store="cloud", kind=kind, id=name, refers_to=lacking))
    return found


def missing_instances(
    running: Iterable[RunningInstance], accounts: Iterable[AccountContents], now: datetime
) -> list[Dangling]:
    """Instances that are running according to PostgreSQL and that their cloud account does not list at all.

    An instance that the cloud lists as stopped or terminated is merely stale until the next refresh. One that it does
    not list may have been terminated long ago. An instance seen recently must still be listed.
    """
    listed = {each.account.id: {instance.instance_id for instance in each.instances} for each in accounts}
    return [
        Dangling(
            store="postgresql",
            kind="running_instances",
            id=one.instance_id,
            refers_to=f"instance {one.instance_id} of account {one.account_id}",
        )
        for one in running
        if one.account_id in listed
        and one.instance_id not in listed[one.account_id]
        and now - one.seen_at < TERMINATED_VISIBLE
    ]


def replicas_without_instance(
    replicas: Iterable[PlacedReplica], answered: Sequence[AccountContents], accounts: Iterable[Account]
) -> list[Dangling]:
    """Replicas on instances that none of the customer's accounts in that region lists.

    Nothing is reported without an account in the region, or if one of them does not answer.
    """
    listed: dict[tuple[str, str, str], set[str]] = {}
    for each in answered:
        here = listed.setdefault(_place(each.account), set())
        here |= {instance.instance_id for instance in each.instances}
    seen = {each.account.id for each in answered}
    unseen = {_place(account) for account in accounts if account.id not in seen}
    return [
        Dangling(
            store="postgresql",
            kind="replicas",
            id=f"{one.deployment_id}/{one.replica_id}",
            refers_to=f"instance {one.instance_id}",
        )
        for one in replicas
        if _place(one) not in unseen and one.instance_id not in listed.get(_place(one), {one.instance_id})
    ]


def confirmed(first: Collection[Dangling], second: Iterable[Dangling]) -> list[Dangling]:
    """References that dangled in both passes; the others were being created or deleted.

    Unreachable stores and accounts are taken from the second pass, which repeats those of the first.
    """
    return [one for one in second if one in first or one.kind == UNREACHABLE]


def _place(where: Account | PlacedReplica) -> tuple[str, str, str]:
    return where.customer_id, where.provider, where.region
