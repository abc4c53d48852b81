"""The application agent's validation rules, and its judgement of canary stages: is the answer quality kept?"""

from optiinfra.agents.app_agent.scoring import count_correct, count_lost
from optiinfra.agents.base.deployments import why_not_idle
from optiinfra.agents.base.sources import Sources
from optiinfra.agents.base.validation import Rules, apply
from optiinfra.api.agents import JudgeAnswer, JudgeTask, ValidateTask, Validation
from optiinfra.api.parameters import IdleShutdownParameters
from optiinfra.domain import quality


async def _validate_spot_migration(task: ValidateTask, _sources: Sources) -> Validation:
    """Establish the quality baseline from fresh answers; refuse without answers, or if it misses the objective."""
    deployment = task.infrastructure.deployment(task.draft.deployment_id)
    answered, objective = len(task.golden_answers), deployment.slo.quality
    if not answered:
        return Validation(
            agent_type="application",
            approved=False,
            reason=f"no golden prompt was answered by {deployment.name}, so there is no quality baseline",
            baseline_established=False,
        )
    correct = count_correct(task.golden_answers)
    baseline = correct / answered
    seen = f"{deployment.name} answers {correct} of {answered} golden prompts correctly ({baseline:.3f})"
    if baseline < objective:
        reason = f"{seen}, below its own SLO of {objective:.2f}, so no change may lower it further"
    else:
        needed = quality.required(baseline, objective)
        reason = f"{seen}; the change must be shown to keep at least {needed:.3f}"
    return Validation(
        agent_type="application",
        approved=baseline >= objective,
        reason=reason,
        baseline_established=True,
        baseline_quality=baseline,
    )


async def _validate_idle_shutdown(task: ValidateTask, _sources: Sources) -> Validation:
    parameters = IdleShutdownParameters.model_validate(task.draft.parameters)
    refusal = why_not_idle(task.infrastructure, parameters.instance_ids)
    reason = refusal or "no deployment answers from these instances, so no quality baseline is needed"
    return Validation(agent_type="application", approved=refusal is None, reason=reason)


RULES: Rules = {"spot_migration": _validate_spot_migration, "idle_shutdown": _validate_idle_shutdown}


async def validate(task: ValidateTask, sources: Sources) -> Validation:
    """Validate a recommendation by its effect on answer quality."""
    return await apply("application", RULES, task, sources)


async def judge(task: JudgeTask, _sources: Sources) -> JudgeAnswer:
    """Judge a canary stage by all answers that its replicas have given so far."""
    answered = len(task.golden_answers)
    if not answered:
        return JudgeAnswer(
            agent_type="application",
            decision="continue",
            reason=f"{task.stage}: no golden prompt has been answered yet",
            observations=0,
        )
    correct, lost = count_correct(task.golden_answers), count_lost(task.baseline_answers, task.golden_answers)
    verdict = quality.judge(correct, answered, lost, task.baseline_quality, task.slo_quality)
    return JudgeAnswer(
        agent_type="application",
        decision=verdict.decision,
        reason=f"{task.stage}: {verdict.reason}",
        observations=verdict.observations,
        estimate=verdict.estimate,
        lower_bound=verdict.lower_bound,
        upper_bound=verdict.upper_bound,
    )
