"""Recommendation type `spot_migration`: which deployments could run on spot instances, and why the others could not."""

import asyncio
from dataclasses import dataclass

from optiinfra.agents.base.deployments import running_instances
from optiinfra.agents.base.observed import Load, observe
from optiinfra.agents.base.prediction import fit
from optiinfra.agents.base.serving import ModelError
from optiinfra.agents.base.sources import Sources
from optiinfra.agents.cost_agent import spot
from optiinfra.agents.cost_agent.finding import Finding, correction_note, refused_provider, refused_risk
from optiinfra.agents.cost_agent.spot import SpotPlan
from optiinfra.api.agents import AnalyzeTask, Draft, Prediction
from optiinfra.api.customers import Deployment, Instance, Preferences
from optiinfra.api.parameters import SpotMigrationParameters
from optiinfra.clouds.price_book import PriceBook, UnknownPriceError
from optiinfra.domain.hardware import MODELS
from optiinfra.domain.outcomes import Change, Outcome, correction, features
from optiinfra.domain.recommendation import RiskLevel
from optiinfra.domain.risk import spot_risk


@dataclass(frozen=True, slots=True)
class Candidate:
    """A deployment that can move to spot, its running instances, and what the move would cost and risk."""

    deployment: Deployment
    instances: list[Instance]
    plan: SpotPlan
    risk: RiskLevel


def consider(
    deployment: Deployment,
    instances: list[Instance],
    preferences: Preferences,
    book: PriceBook,
    spot_quotes: dict[str, float],
) -> Candidate | str:
    """The deployment on these running instances as a candidate for spot, or the reason why it is not eligible."""
    if reason := _ineligible(deployment, instances, preferences):
        return reason
    instance_type = instances[0].instance_type
    quoted = spot_quotes.get(f"{deployment.region}/{instance_type}")
    try:
        plan = spot.plan(book, deployment.provider, deployment.region, instance_type, len(instances), quoted)
    except UnknownPriceError as error:
        return str(error)
    if plan.savings() <= 0:
        return (
            f"spot would save nothing: {instance_type} costs ${plan.ondemand_price:,.4f} an hour on demand, "
            f"${plan.spot_price:,.4f} on spot, and interruptions about ${plan.allowance:,.0f} a month"
        )
    risk = spot_risk(len(instances), plan.interruptions_per_month)
    return refused_risk(risk, preferences) or Candidate(deployment, instances, plan, risk)


def modelled_p95(candidate: Candidate, load: Load) -> float | None:
    """The 95th percentile (ms) that our model expects on spot: the same engines under the same load."""
    replicas = len(candidate.instances)
    try:
        serving = fit(candidate.deployment, candidate.instances[0].instance_type, replicas, load)
    except ModelError:
        return None
    return serving.at(load.requests_per_second or 0.0, replicas).p95_latency_ms


def change_of(candidate: Candidate, load: Load) -> Change:
    """The features by which similar past migrations are found."""
    model, instance = MODELS.get(candidate.deployment.model), candidate.instances[0]
    return Change(
        type="spot_migration",
        hourly_price=candidate.plan.ondemand_price,
        model_parameters=model.parameters if model else 0.0,
        gpu_count=instance.gpu_count,
        replicas=len(candidate.instances),
        requests_per_second=load.requests_per_second or 0.0,
    )


def draft(candidate: Candidate, vector: list[float], p95: float | None, outcomes: list[Outcome]) -> Draft:
    """The recommendation: our model's figures, corrected by the outcomes of this customer's similar changes."""
    plan, deployment = candidate.plan, candidate.deployment
    factor = correction(outcomes, "savings")
    savings = plan.savings(factor)
    return Draft(
        type="spot_migration",
        title=f"Move {deployment.name} to spot instances",
        explanation=_explanation(candidate, savings, factor, len(outcomes)),
        risk_level=candidate.risk,
        confidence=spot.confidence(outcomes, latency_known=p95 is not None),
        estimated_savings=round(savings, 2),
        predicted=Prediction(
            monthly_cost=round(plan.current_cost - savings, 2),
            p95_latency_ms=None if p95 is None else round(p95 * correction(outcomes, "p95_latency_ms"), 1),
            quality_score=None,
        ),
        affected_resources=[deployment.deployment_id, *(instance.instance_id for instance in candidate.instances)],
        deployment_id=deployment.deployment_id,
        parameters=SpotMigrationParameters(
            deployment=deployment.name,
            provider=deployment.provider,
            region=deployment.region,
            instance_type=candidate.instances[0].instance_type,
            count=plan.count,
            source_instance_ids=[instance.instance_id for instance in candidate.instances],
            spot_price=plan.spot_price,
            ondemand_price=plan.ondemand_price,
            interruptions_per_month=plan.interruptions_per_month,
        ).model_dump(),
        modelled={"savings": plan.price_difference} | ({} if p95 is None else {"p95_latency_ms": p95}),
        features=vector,
        similar_outcomes=[outcome.optimization_id for outcome in outcomes],
    )


async def find(task: AnalyzeTask, sources: Sources) -> list[Finding]:
    """One finding for each deployment."""
    book = PriceBook.load()

    async def look_at(deployment: Deployment) -> Finding:
        instances = running_instances(task.infrastructure, deployment)
        found = consider(deployment, instances, task.preferences, book, task.spot_quotes)
        if isinstance(found, str):
            return Finding(None, f"{deployment.name}: {found}")
        load = await observe(sources.telemetry, task.customer_id, deployment.deployment_id)
        vector = features(change_of(found, load))
        outcomes = await sources.outcomes.similar(task.customer_id, "spot_migration", vector)
        made = draft(found, vector, modelled_p95(found, load), outcomes)
        return Finding(made, f"{deployment.name}: about ${made.estimated_savings:,.0f} a month on spot instances")

    # Concurrently, because each may wait for a deployment's first measurement.
    return await asyncio.gather(*(look_at(deployment) for deployment in task.infrastructure.vllm_deployments))


def _ineligible(deployment: Deployment, instances: list[Instance], preferences: Preferences) -> str | None:
    """Why a deployment cannot run on spot at any price; None when it can."""
    if not instances:
        return "none of its instances is running"
    if not deployment.interruptible:
        return "its owner does not allow interruptions"
    on_spot = sum(instance.lifecycle == "spot" for instance in instances)
    if on_spot == len(instances):
        return "it is on spot instances already"
    if on_spot:
        return f"{on_spot} of its {len(instances)} instances are on spot already"
    if not preferences.spot_allowed:
        return "your preferences do not allow spot instances"
    if reason := refused_provider(deployment.provider, preferences):
        return reason
    accounts = sorted({instance.account_id or "unknown" for instance in instances})
    if len(accounts) > 1:
        return f"its instances are in several cloud accounts ({', '.join(accounts)}); a migration stays within one"
    types = sorted({instance.instance_type for instance in instances})
    if len(types) > 1:
        return f"it runs on several instance types ({', '.join(types)}); a migration moves one"
    return None


def _explanation(candidate: Candidate, savings: float, factor: float, outcomes: int) -> str:
    plan, deployment = candidate.plan, candidate.deployment
    expected = plan.interruptions_per_month * plan.count
    return (
        f"{deployment.name} runs on {plan.count} on-demand {candidate.instances[0].instance_type} "
        f"in {deployment.region} for ${plan.current_cost:,.0f} a month (${plan.ondemand_price:,.2f} an hour each) "
        "and may be interrupted. "
        f"On spot we plan with ${plan.spot_price:,.2f} an hour each ({plan.spot_source}). "
        f"We expect {expected:.2f} interruptions a month and allow ${plan.allowance:,.0f} for replacement instances. "
        f"That leaves about ${savings:,.0f} a month, {savings / plan.current_cost:.0%} of what the deployment costs."
        + correction_note("The savings from the lower price", factor, outcomes)
    )
