"""The performance agent's validation rules, and its judgement of canary stages: is the latency objective met?"""

from optiinfra.agents.base.deployments import running_instances, why_not_idle
from optiinfra.agents.base.observed import Load, observe
from optiinfra.agents.base.prediction import fit
from optiinfra.agents.base.serving import ModelError
from optiinfra.agents.base.sources import Sources
from optiinfra.agents.base.validation import Rules, apply
from optiinfra.api.agents import JudgeAnswer, JudgeTask, ValidateTask, Validation
from optiinfra.api.customers import Deployment
from optiinfra.api.parameters import IdleShutdownParameters, SpotMigrationParameters
from optiinfra.domain import latency

HEADROOM = 0.9
"""Share of an engine's capacity that may be planned for; above it, queues grow faster than the model can predict."""


def survives_interruption(deployment: Deployment, parameters: SpotMigrationParameters, load: Load) -> tuple[bool, str]:
    """Whether the deployment still meets its latency objective after a spot interruption took one replica; and why.

    The load is that of the busiest hour known, because an interruption may come at any time.
    """
    remaining = parameters.count - 1
    if remaining < 1:
        return False, f"{deployment.name} has one replica: an interruption would leave none"
    try:
        serving = fit(deployment, parameters.instance_type, parameters.count, load)
    except ModelError as error:
        return False, f"the latency after an interruption cannot be predicted: {error}"
    busiest = max(load.requests_per_second or 0.0, load.busiest or 0.0)
    forecast, objective = serving.at(busiest, remaining), deployment.slo.p95_latency_ms
    situation = (
        f"an interruption leaves {remaining} of {parameters.count} replicas; "
        f"at the busiest hour's {busiest:.2f} requests per second "
        f"each serves {forecast.load:.2f} of its capacity of {forecast.capacity:.2f}"
    )
    if forecast.p95_latency_ms is None or forecast.utilization > HEADROOM:
        return False, f"{situation}: more than {HEADROOM:.0%} of its capacity, so the SLO would break"
    expected = f"p95 about {forecast.p95_latency_ms:,.0f} ms against an SLO of {objective:,.0f} ms"
    if forecast.p95_latency_ms > objective:
        return False, f"{situation}: {expected}, so the SLO would break"
    return True, f"{situation}: {expected}"


async def _validate_spot_migration(task: ValidateTask, sources: Sources) -> Validation:
    deployment = task.infrastructure.deployment(task.draft.deployment_id)
    parameters = SpotMigrationParameters.model_validate(task.draft.parameters)
    running = running_instances(task.infrastructure, deployment)
    if len(running) != parameters.count:
        return _validation(
            approved=False,
            reason=f"{deployment.name} runs on {len(running)} instances now, "
            f"the recommendation is for {parameters.count}",
        )
    load = await observe(sources.telemetry, task.customer_id, deployment.deployment_id)
    approved, reason = survives_interruption(deployment, parameters, load)
    return _validation(approved=approved, reason=reason)


async def _validate_idle_shutdown(task: ValidateTask, _sources: Sources) -> Validation:
    parameters = IdleShutdownParameters.model_validate(task.draft.parameters)
    if refusal := why_not_idle(task.infrastructure, parameters.instance_ids):
        return _validation(approved=False, reason=refusal)
    reason = "no engine of any deployment runs on these instances, so no latency depends on them"
    return _validation(approved=True, reason=reason)


RULES: Rules = {"spot_migration": _validate_spot_migration, "idle_shutdown": _validate_idle_shutdown}


async def validate(task: ValidateTask, sources: Sources) -> Validation:
    """Validate a recommendation by its effect on latency."""
    return await apply("performance", RULES, task, sources)


def _validation(*, approved: bool, reason: str) -> Validation:
    return Validation(agent_type="performance", approved=approved, reason=reason)


async def judge(task: JudgeTask, sources: Sources) -> JudgeAnswer:
    """Judge a canary stage by the latency histograms of its replicas' engines."""
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
