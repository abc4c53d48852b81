"""Judging a stage of a rollout by the performance and the application agent, until both verdicts are conclusive."""

from collections.abc import Sequence
from datetime import datetime

from optiinfra.api.agents import JudgeAnswer, JudgeTask
from optiinfra.api.runtimes import GoldenAnswer
from optiinfra.domain.quality import INTERIM_ANALYSES
from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.golden_prompts import service as golden_prompts
from optiinfra.orchestrator.optimizations.context import Detail, StepError
from optiinfra.orchestrator.optimizations.judgement import ask, deadline_of, judge_until_conclusive
from optiinfra.orchestrator.optimizations.rollout.snapshot import RolloutContext


async def judge(context: RolloutContext, replica_ids: Sequence[str]) -> Detail:
    """Judge a stage by what these replicas do from now on.

    Returns `{verdicts: {agent_type: JudgeAnswer}}`; raises StepError when an agent rejects the stage or
    reaches no verdict before the deadline.
    """
    if not replica_ids:
        raise StepError("no replica of this stage is alive")
    deadline = deadline_of(context)
    name = context.snapshot.deployment.name
    # Start of the measurement window, by the runtime's clock, which timestamps the telemetry.
    since = (await context.measure(name)).measured_at
    answers: list[GoldenAnswer] = []

    async def latency(look: int) -> JudgeAnswer:
        await context.measure(name)
        return await ask(context, "performance", _task(context, since, look, replica_ids, []))

    async def quality(look: int) -> JudgeAnswer:
        # There is a next count: the last interim analysis is always conclusive.
        target = next(count for count in INTERIM_ANALYSES if count > len(answers))
        prompts = range(len(answers), target)
        answers.extend(await golden_prompts.ask(context.runtime, context.fresh_key(), name, replica_ids, prompts))
        return await ask(context, "application", _task(context, since, look, replica_ids, answers))

    # In this order: golden prompts are shorter than customers' requests and would flatter the latency.
    verdicts = [await judge_until_conclusive(look, deadline) for look in (latency, quality)]
    return {"verdicts": {verdict.agent_type: verdict.model_dump(mode="json") for verdict in verdicts}}


def _task(
    context: RolloutContext, since: datetime, look: int, replica_ids: Sequence[str], answers: list[GoldenAnswer]
) -> JudgeTask:
    before = context.snapshot
    return JudgeTask(
        task_id=new_id("task"),
        customer_id=context.customer_id,
        deployment_id=before.deployment.deployment_id,
        stage=context.step,
        since=since,
        replica_ids=list(replica_ids),
        slo_p95_latency_ms=before.deployment.slo.p95_latency_ms,
        slo_quality=before.deployment.slo.quality,
        baseline_quality=before.quality or 0.0,
        look=look,
        golden_answers=answers,
        baseline_answers=before.baseline_answers if answers else [],
    )
