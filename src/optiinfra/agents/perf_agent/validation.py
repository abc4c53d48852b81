"""Whether a deployment keeps its latency objective under a change, and whether a canary stage kept it."""

from optiinfra.agents.base.agent import Sources
from optiinfra.agents.base.deployments import running_instances
from optiinfra.agents.base.observed import Load, observe
from optiinfra.agents.base.prediction import fit
from optiinfra.agents.base.serving import ModelError
from optiinfra.api.agents import JudgeAnswer, JudgeTask, ValidateTask, Validation
from optiinfra.api.customers import Deployment
from optiinfra.api.parameters import SpotMigrationParameters
from optiinfra.domain import latency

HEADROOM = 0.9
"""Share of an engine's capacity that may be planned for; above it queues grow faster than any model tells."""


def survives_interruption(deployment: Deployment, parameters: SpotMigrationParameters, load: Load) -> tuple[bool, str]:
    """Whether what is left after the cloud took one spot instance still holds the objective; and why, in words.

    The load is that of the busiest hour known, for interruptions choose their own time.
    """
    left = parameters.count - 1
    if left < 1:
        return False, f"{deployment.name} has one replica: an interruption would leave none to answer"
    try:
        serving = fit(deployment, parameters.instance_type, parameters.count, load)
    except ModelError as error:
        return False, f"cannot be judged: {error}"
    busiest = max(load.requests_per_second or 0.0, load.busiest or 0.0)
    forecast, objective = serving.at(busiest, left), deployment.slo.p95_latency_ms
    scene = (
        f"an interruption leaves {left} of {parameters.count} replicas; at the busiest hour's {busiest:.2f} requests a "
        f"second each carries {forecast.load:.2f} of the {forecast.capacity:.2f} it can"
    )
    if forecast.p95_latency_ms is None or forecast.utilization > HEADROOM:
        return False, f"{scene}: more than {HEADROOM:.0%} of its capacity, so the SLO would break"
    expected = f"p95 about {forecast.p95_latency_ms:,.0f} ms against an SLO of {objective:,.0f} ms"
    if forecast.p95_latency_ms > objective:
        return False, f"{scene}: {expected}, so the SLO would break"
    return True, f"{scene}: {expected}"


async def validate(task: ValidateTask, sources: Sources) -> Validation:
    """Judge another agent's recommendation by what it does to latency."""
    if task.draft.type != "spot_migration":
        return Validation(
            agent_type="performance", approved=False, reason=f"there is no rule to judge a {task.draft.type} by"
        )
    deployment = task.infrastructure.deployment(task.draft.deployment_id)
    parameters = SpotMigrationParameters.model_validate(task.draft.parameters)
    running = running_instances(task.infrastructure, deployment)
    if len(running) != parameters.count:
        reason = f"{deployment.name} runs on {len(running)} instances now, the recommendation is for {parameters.count}"
        return Validation(agent_type="performance", approved=False, reason=reason)
    load = await observe(sources.telemetry, task.customer_id, deployment.deployment_id)
    approved, reason = survives_interruption(deployment, parameters, load)
    return Validation(agent_type="performance", approved=approved, reason=reason)


async def judge(task: JudgeTask, sources: Sources) -> JudgeAnswer:
    """Judge a canary stage by the latencies that its replicas' engines counted."""
    counts = await sources.telemetry.latencies(task.customer_id, task.deployment_id, task.since, task.replica_ids)
    verdict = latency.judge(counts, task.slo_p95_latency_ms, task.look)
    return JudgeAnswer(
        agent_type="performance",
        decision=verdict.decision,
        reason=f"{task.stage}: {verdict.reason}",
        observations=verdict.observations,
        estimate=verdict.estimate,
        lower_bound=verdict.lower_bound,
        upper_bound=verdict.upper_bound,
    )
