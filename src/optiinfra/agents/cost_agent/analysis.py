"""Which deployments could run on spot instances, for how much less; and why the others could not."""

import asyncio
from dataclasses import dataclass

from optiinfra.agents.base.agent import Sources
from optiinfra.agents.base.deployments import running_instances
from optiinfra.agents.base.observed import Load, observe
from optiinfra.agents.base.prediction import fit
from optiinfra.agents.base.serving import ModelError
from optiinfra.agents.cost_agent import spot
from optiinfra.agents.cost_agent.spot import SpotPlan
from optiinfra.api.agents import AnalyzeAnswer, AnalyzeTask, Draft, Prediction
from optiinfra.api.customers import Deployment, Instance, Preferences
from optiinfra.api.parameters import SpotMigrationParameters
from optiinfra.clouds.price_book import PriceBook, UnknownPriceError
from optiinfra.domain.hardware import MODELS
from optiinfra.domain.outcomes import Change, Outcome, correction, features
from optiinfra.domain.recommendation import RiskLevel, within_risk


@dataclass(frozen=True, slots=True)
class Candidate:
    """A deployment that may go to spot, with what that would mean."""

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
    """The deployment (on these running instances) as a candidate for spot, or in words why it is none."""
    if reason := _excluded(deployment, instances, preferences):
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
    risk = spot.risk_of(len(instances), plan.interruptions_per_month)
    if not within_risk(risk, preferences.max_risk):
        return f"the risk is {risk}, above your limit ({preferences.max_risk})"
    return Candidate(deployment, instances, plan, risk)


def modelled_p95(candidate: Candidate, load: Load) -> float | None:
    """The 95th percentile (ms) that our own model expects on spot: the same engines under the same load."""
    replicas = len(candidate.instances)
    try:
        serving = fit(candidate.deployment, candidate.instances[0].instance_type, replicas, load)
    except ModelError:
        return None
    return serving.at(load.requests_per_second or 0.0, replicas).p95_latency_ms


def change_of(candidate: Candidate, load: Load) -> Change:
    """What makes this migration like another."""
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
    """The recommendation: our model's figures, corrected by what similar changes of this customer brought."""
    plan, deployment = candidate.plan, candidate.deployment
    factor = correction(outcomes, "savings")
    savings = plan.savings(factor)
    return Draft(
        type="spot_migration",
        title=f"Move {deployment.name} to spot instances",
        explanation=_explain(candidate, savings, factor, len(outcomes)),
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


async def analyze(task: AnalyzeTask, sources: Sources) -> AnalyzeAnswer:
    """Look at every deployment; `summary` says what was found, or why there was nothing, deployment by deployment."""
    book = PriceBook.load()

    async def look_at(deployment: Deployment) -> tuple[Draft | None, str]:
        instances = running_instances(task.infrastructure, deployment)
        found = consider(deployment, instances, task.preferences, book, task.spot_quotes)
        if isinstance(found, str):
            return None, f"{deployment.name}: {found}"
        load = await observe(sources.telemetry, task.customer_id, deployment.deployment_id)
        vector = features(change_of(found, load))
        outcomes = await sources.outcomes.similar(task.customer_id, "spot_migration", vector)
        made = draft(found, vector, modelled_p95(found, load), outcomes)
        return made, f"{deployment.name}: about ${made.estimated_savings:,.0f} a month on spot instances"

    # All at once: each may wait for a deployment's first measurement.
    looks = await asyncio.gather(*(look_at(deployment) for deployment in task.infrastructure.vllm_deployments))
    summary = "; ".join(words for _, words in looks) or "there is no deployment yet"
    return AnalyzeAnswer(drafts=[made for made, _ in looks if made is not None], summary=summary)


def _excluded(deployment: Deployment, instances: list[Instance], preferences: Preferences) -> str | None:
    """Why spot is out of the question for a deployment, whatever it costs."""
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
    if deployment.provider not in preferences.providers:
        return f"your preferences do not list {deployment.provider} among the providers"
    types = sorted({instance.instance_type for instance in instances})
    if len(types) > 1:
        return f"it runs on several instance types ({', '.join(types)}); a migration moves one"
    return None


def _explain(candidate: Candidate, savings: float, factor: float, outcomes: int) -> str:
    plan, deployment = candidate.plan, candidate.deployment
    expected = plan.interruptions_per_month * plan.count
    text = (
        f"{deployment.name} runs on {plan.count} on-demand {candidate.instances[0].instance_type} "
        f"in {deployment.region} for ${plan.current_cost:,.0f} a month (${plan.ondemand_price:,.2f} an hour each) "
        "and may be interrupted. "
        f"On spot we plan with ${plan.spot_price:,.2f} an hour each ({plan.spot_source}). "
        f"We expect {expected:.2f} interruptions a month and allow ${plan.allowance:,.0f} for instances that stand in. "
        f"That leaves about ${savings:,.0f} a month, {savings / plan.current_cost:.0%} of what the deployment costs."
    )
    if outcomes:
        changes = "a similar change" if outcomes == 1 else f"{outcomes} similar changes"
        text += (
            f" The difference in price is corrected by a factor of {factor:.3f}, as measured after {changes} of yours."
        )
    return text
