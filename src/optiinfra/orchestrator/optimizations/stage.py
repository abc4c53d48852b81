"""Judging a stage: the performance and the application agent look at fresh measurements until both are sure."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from optiinfra.api.agents import JudgeAnswer, JudgeTask
from optiinfra.api.customers import Deployment
from optiinfra.api.runtimes import GoldenAnswer, GoldenPrompts
from optiinfra.domain.quality import LOOKS
from optiinfra.domain.recommendation import AgentType
from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.agents import service as agents
from optiinfra.orchestrator.optimizations.run import Run, StepError
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.runtimes.service import order
from optiinfra.stores.postgres import models

_LOOK_SECONDS = 0.25
"""Least time between two looks: telemetry of a shorter one would hardly hold anything new."""

Look = Callable[[int], Awaitable[JudgeAnswer]]


async def judge(run: Run, replica_ids: Sequence[str]) -> dict[str, Any]:
    """Judge a stage by what these replicas do from now on.

    Returns each agent's last word. Raises StepError when one says that it fails, or when one was not sure before
    the deadline: time alone passes nothing.
    """
    ends = time.monotonic() + run.platform.settings.stage_deadline_seconds
    # What is scraped from now on happened from now on. By the runtime's clock: the telemetry is stamped by it.
    since = (await run.measure()).measured_at
    answers: list[GoldenAnswer] = []

    async def latency(look: int) -> JudgeAnswer:
        await run.measure()
        return await _ask(run, "performance", since, look, replica_ids)

    async def quality(look: int) -> JudgeAnswer:
        answers.extend(await _more_answers(run, len(answers), replica_ids))
        return await _ask(run, "application", since, look, replica_ids, answers)

    # In this order: golden prompts are shorter than customers' requests and would flatter the latency.
    verdicts = [await _until_sure(look, ends) for look in (latency, quality)]
    return {"verdicts": {verdict.agent_type: verdict.model_dump(mode="json") for verdict in verdicts}}


async def _until_sure(look: Look, ends: float) -> JudgeAnswer:
    for number in itertools.count(1):
        began = time.monotonic()
        answer = await look(number)
        if answer.decision == "pass":
            return answer
        if answer.decision == "fail":
            raise StepError(f"the {answer.agent_type} agent fails it: {answer.reason}")
        if time.monotonic() > ends:
            raise StepError(f"the {answer.agent_type} agent is not sure at the stage's deadline: {answer.reason}")
        await asyncio.sleep(max(0.0, began + _LOOK_SECONDS - time.monotonic()))
    raise AssertionError("there is always another look")


async def baseline_answers(
    platform: Platform, recommendation: models.Recommendation, deployment: Deployment
) -> list[GoldenAnswer]:
    """What the deployment answers to the golden prompts before the change; asked once a recommendation."""
    serving = [replica for replica, weight in deployment.weights.items() if weight > 0]
    payload = GoldenPrompts(deployment=deployment.name, replica_ids=serving, offset=0, count=LOOKS[-1])
    key = f"{recommendation.id}:baseline"
    output = await order(platform, recommendation.customer_id, key, "golden_prompts", payload)
    return [GoldenAnswer.model_validate(answer) for answer in output["answers"]]


async def _more_answers(run: Run, have: int, replica_ids: Sequence[str]) -> list[GoldenAnswer]:
    """Answers to the same prompts under the same seeds as the baseline's, up to the next look."""
    target = next(look for look in LOOKS if look > have)  # at the last look the agent is sure
    payload = GoldenPrompts(
        deployment=run.parameters.deployment, replica_ids=list(replica_ids), offset=have, count=target - have
    )
    output = await run.order_again("golden_prompts", payload)
    return [GoldenAnswer.model_validate(answer) for answer in output["answers"]]


async def _ask(
    run: Run,
    agent: AgentType,
    since: datetime,
    look: int,
    replica_ids: Sequence[str],
    answers: Sequence[GoldenAnswer] = (),
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
        look=look,
        golden_answers=list(answers),
        baseline_answers=run.baseline_answers if answers else [],
    )
    return await agents.ask(run.platform, agent, task, JudgeAnswer)
