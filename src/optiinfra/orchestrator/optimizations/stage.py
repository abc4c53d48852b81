"""Judging a stage: the performance and the application agent look at fresh measurements until both are sure."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from optiinfra.api.agents import JudgeAnswer, JudgeTask
from optiinfra.api.common import now
from optiinfra.api.runtimes import GoldenAnswer, GoldenPrompts
from optiinfra.domain.quality import LOOKS
from optiinfra.domain.recommendation import AgentType
from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.agents import service as agents
from optiinfra.orchestrator.optimizations.run import Run, StepError

_LOOK_SECONDS = 0.25
"""Least time between two looks: telemetry of a shorter one would hardly hold anything new."""

Look = Callable[[], Awaitable[JudgeAnswer]]


async def judge(run: Run, number: int, replica_ids: Sequence[str]) -> dict[str, Any]:
    """Judge the `number`-th stage (from 0) by what these replicas do from now on.

    Returns each agent's last word. Raises StepError when one says that it fails, or when one was not sure before
    the deadline: time alone passes nothing.
    """
    ends = time.monotonic() + run.platform.settings.stage_deadline_seconds
    await run.measure()  # what is scraped from now on happened from now on
    since = now()
    answers: list[GoldenAnswer] = []

    async def latency() -> JudgeAnswer:
        await run.measure()
        return await _ask(run, "performance", since, replica_ids, [])

    async def quality() -> JudgeAnswer:
        answers.extend(await _more_answers(run, number, len(answers), replica_ids))
        return await _ask(run, "application", since, replica_ids, answers)

    # In this order: golden prompts are shorter than customers' requests and would flatter the latency.
    verdicts = [await _until_sure(look, ends) for look in (latency, quality)]
    return {"verdicts": {verdict.agent_type: verdict.model_dump(mode="json") for verdict in verdicts}}


async def _until_sure(look: Look, ends: float) -> JudgeAnswer:
    while True:
        began = time.monotonic()
        answer = await look()
        if answer.decision == "pass":
            return answer
        if answer.decision == "fail":
            raise StepError(f"the {answer.agent_type} agent fails it: {answer.reason}")
        if time.monotonic() > ends:
            raise StepError(f"the {answer.agent_type} agent is not sure at the stage's deadline: {answer.reason}")
        await asyncio.sleep(max(0.0, began + _LOOK_SECONDS - time.monotonic()))


async def _more_answers(run: Run, stage: int, have: int, replica_ids: Sequence[str]) -> list[GoldenAnswer]:
    """The golden prompts up to the next look of the sequential test."""
    target = next(look for look in LOOKS if look > have)  # at the last look the agent is sure
    payload = GoldenPrompts(
        deployment=run.parameters.deployment,
        replica_ids=list(replica_ids),
        # Each stage draws samples of its own: the baseline's come first, then those of the stages before.
        offset=(stage + 1) * LOOKS[-1] + have,
        count=target - have,
    )
    output = await run.order_again("golden_prompts", payload)
    return [GoldenAnswer.model_validate(answer) for answer in output["answers"]]


async def _ask(
    run: Run, agent: AgentType, since: datetime, replica_ids: Sequence[str], answers: Sequence[GoldenAnswer]
) -> JudgeAnswer:
    task = JudgeTask(
        task_id=new_id("task"),
        customer_id=run.customer_id,
        deployment_id=run.draft.deployment_id,
        stage=run.step,
        since=since,
        replica_ids=list(replica_ids),
        slo_p95_latency_ms=run.snapshot.deployment.slo.p95_latency_ms,
        slo_quality=run.snapshot.deployment.slo.quality,
        baseline_quality=run.baseline_quality,
        golden_answers=list(answers),
    )
    return await agents.ask(run.platform, agent, task, JudgeAnswer)
