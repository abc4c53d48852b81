"""Recommendation type `idle_shutdown`: running instances that serve no deployment and have done so for long enough."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from optiinfra.agents.base.sources import Sources
from optiinfra.agents.cost_agent.finding import Finding, correction_note, refused_provider, refused_risk
from optiinfra.api.agents import AnalyzeTask, Draft, Prediction
from optiinfra.api.common import now
from optiinfra.api.customers import Infrastructure, Instance, Preferences
from optiinfra.api.parameters import IdleShutdownParameters
from optiinfra.domain.outcomes import Change, Outcome, correction, features
from optiinfra.domain.recommendation import RiskLevel
from optiinfra.domain.savings import HOURS_PER_MONTH

RISK: RiskLevel = "low"
"""The instances serve nothing, are stopped before they are terminated, and can be started again."""

_CONFIDENCE_AFTER_GRACE, _HIGHEST_CONFIDENCE = 0.8, 0.95


@dataclass(frozen=True, slots=True)
class IdleGroup:
    """Idle instances of one cloud account and region, in order of their ids; `idle_since` holds for all of them."""

    provider: str
    region: str
    account_id: str | None
    instances: tuple[Instance, ...]
    idle_since: datetime

    @property
    def monthly_cost(self) -> float:
        """What all of them cost, in dollars per month."""
        return sum(instance.monthly_cost or 0.0 for instance in self.instances)

    @property
    def place(self) -> str:
        """Region and, if known, the account."""
        return f"{self.region} (account {self.account_id})" if self.account_id else self.region


def idle_instances(infrastructure: Infrastructure) -> list[Instance]:
    """The running instances that host no engine of any deployment, in order of their ids."""
    hosting = {engine.instance_id for deployment in infrastructure.vllm_deployments for engine in deployment.engines}
    idle = (one for one in infrastructure.instances if one.state == "running" and one.instance_id not in hosting)
    return sorted(idle, key=lambda instance: instance.instance_id)


def not_recommended(instance: Instance, preferences: Preferences, at: datetime, grace: timedelta) -> str | None:
    """Why the shutdown of an idle instance is not recommended at that moment; None when it is."""
    if reason := refused_provider(instance.provider, preferences) or refused_risk(RISK, preferences):
        return reason
    if instance.lifecycle == "spot":
        return "it is a spot instance, which cannot be stopped and started again if something needs it after all"
    if not instance.monthly_cost:
        return "its price is not known"
    if instance.idle_since is None:
        # Also before a runtime has connected: until then it is unknown what an instance hosts.
        return f"not reported idle yet, recommended after {_duration(grace)}"
    idle_for = at - instance.idle_since
    return None if idle_for >= grace else f"idle for {_duration(idle_for)}, recommended after {_duration(grace)}"


def groups(instances: Sequence[Instance]) -> list[IdleGroup]:
    """One group for each cloud account and region, so that no change spans accounts. All have an `idle_since`."""

    def account(instance: Instance) -> tuple[str, str, str]:
        return instance.provider, instance.region, instance.account_id or ""

    found = []
    for (provider, region, account_id), members in groupby(sorted(instances, key=account), account):
        group = tuple(members)
        idle_since = max(instance.idle_since for instance in group if instance.idle_since is not None)
        found.append(IdleGroup(provider, region, account_id or None, group, idle_since))
    return found


def change_of(group: IdleGroup) -> Change:
    """The features by which similar past shutdowns are found; price and GPUs are those of a mean instance."""
    count = len(group.instances)
    return Change(
        type="idle_shutdown",
        hourly_price=group.monthly_cost / HOURS_PER_MONTH / count,
        model_parameters=0.0,
        gpu_count=round(sum(instance.gpu_count for instance in group.instances) / count),
        replicas=count,
        requests_per_second=0.0,
    )


def confidence(idle_for: timedelta, grace: timedelta, outcomes: Sequence[Outcome]) -> float:
    """Confidence 0..1: from 0.8 towards 0.95.

    The price is known; what is not known is whether something outside of the deployments uses the instances. That gets
    less likely with time: another grace period without use counts as much as one similar change that went well.
    """
    weight = max(0.0, idle_for / grace - 1.0) + sum(outcome.similarity for outcome in outcomes)
    return round(_CONFIDENCE_AFTER_GRACE + (_HIGHEST_CONFIDENCE - _CONFIDENCE_AFTER_GRACE) * weight / (1.0 + weight), 3)


def draft(
    group: IdleGroup, vector: list[float], outcomes: Sequence[Outcome], *, at: datetime, grace: timedelta
) -> Draft:
    """The recommendation; past outcomes correct its savings, which never exceed what the instances cost."""
    cost, factor = group.monthly_cost, correction(outcomes, "savings")
    savings = min(cost * factor, cost)
    instance_ids = [instance.instance_id for instance in group.instances]
    return Draft(
        type="idle_shutdown",
        title=f"Shut down {_counted(len(instance_ids))} in {group.region}",
        explanation=_explanation(group, savings) + correction_note("These savings", factor, len(outcomes)),
        risk_level=RISK,
        confidence=confidence(at - group.idle_since, grace, outcomes),
        estimated_savings=round(savings, 2),
        predicted=Prediction(monthly_cost=0.0, p95_latency_ms=None, quality_score=None),
        affected_resources=instance_ids,
        deployment_id=None,
        parameters=IdleShutdownParameters(
            provider=group.provider,
            region=group.region,
            instance_ids=instance_ids,
            idle_since=group.idle_since,
            hourly_cost=cost / HOURS_PER_MONTH,
        ).model_dump(mode="json"),
        modelled={"savings": cost},
        features=vector,
        similar_outcomes=[outcome.optimization_id for outcome in outcomes],
    )


async def find(task: AnalyzeTask, sources: Sources, *, grace: timedelta) -> list[Finding]:
    """One finding for each account and region with instances to shut down, and for each idle instance to keep."""
    at, ready, kept = now(), [], []
    for instance in idle_instances(task.infrastructure):
        if reason := not_recommended(instance, task.preferences, at, grace):
            kept.append(Finding(None, f"{instance.instance_id} ({instance.instance_type}): {reason}"))
        else:
            ready.append(instance)

    async def recommend(group: IdleGroup) -> Finding:
        vector = features(change_of(group))
        outcomes = await sources.outcomes.similar(task.customer_id, "idle_shutdown", vector)
        made = draft(group, vector, outcomes, at=at, grace=grace)
        saved = f"about ${made.estimated_savings:,.0f} a month if shut down"
        return Finding(made, f"{_counted(len(group.instances))} in {group.place}: {saved}")

    return [*await asyncio.gather(*(recommend(group) for group in groups(ready))), *kept]


def _explanation(group: IdleGroup, savings: float) -> str:
    types = Counter(instance.instance_type for instance in group.instances)
    listed = ", ".join(f"{count} {instance_type}" for instance_type, count in sorted(types.items()))
    one = len(group.instances) == 1
    return (
        f"{_counted(len(group.instances))} ({listed}) in {group.place} {'serves' if one else 'serve'} no deployment "
        f"and {'has' if one else 'have'} not done so since {group.idle_since:%Y-%m-%d %H:%M} UTC, but "
        f"{'costs' if one else 'cost'} ${group.monthly_cost:,.0f} a month. "
        f"Shutting {'it' if one else 'them'} down saves about ${savings:,.0f} a month. "
        f"{'It is' if one else 'They are'} stopped first and terminated only when nothing depends on "
        f"{'it' if one else 'them'}."
    )


def _counted(count: int) -> str:
    return f"{count} idle instance" if count == 1 else f"{count} idle instances"


def _duration(length: timedelta) -> str:
    """A length of time in its largest unit that leaves at least two, rounded down: 3 min, 24 h, 5 days."""
    seconds = length.total_seconds()
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
