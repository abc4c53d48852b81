"""Judging a stage: the performance and the application agent look at fresh measurements until both are sure."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from optiinfra.api.agents import JudgeAnswer, JudgeTask
from optiinfra.api.common import now
from optiinfra.api.runtimes import GoldenAnswer, GoldenPrompts
from optiinfra.domain.quality import LOOKS
from optiinfra.domain.recommendation import VALIDATORS, AgentType
from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.agents import service as agents
from optiinfra.orchestrator.optimizations.run import Run, StepError

_LOOK_SECONDS = 0.25
"""Least time between two looks: telemetry of a shorter one would hardly hold anything new."""


async def judge(run: Run, number: int, replica_ids: Sequence[str]) -> dict[str, Any]:
    """Judge the `number`-th stage (from 0) by what these replicas do from now on.

    Returns what each agent saw last. Raises StepError when one says that it fails, or when they were not sure
    before the deadline: time alone passes nothing.
    """
    await run.measure("flush")  # what is scraped from now on happened from now on
    since, ends = now(), time.monotonic() + run.platform.settings.stage_deadline_seconds
    answers: list[GoldenAnswer] = []
    passed: dict[AgentType, JudgeAnswer] = {}
    for look in itertools.count():
        began = time.monotonic()
        if "application" not in passed:
            answers += await _more_answers(run, number, len(answers), replica_ids)
        await run.measure(str(look))
        unsure = [agent for agent in VALIDATORS if agent not in passed]
        seen = await asyncio.gather(*(_ask(run, agent, since, replica_ids, answers) for agent in unsure))
        for answer in seen:
            if answer.decision == "fail":
                raise StepError(f"the {answer.agent_type} agent fails it: {answer.reason}")
            if answer.decision == "pass":
                passed[answer.agent_type] = answer
        if len(passed) == len(VALIDATORS):
            break
        if time.monotonic() > ends:
            last = "; ".join(f"{answer.agent_type}: {answer.reason}" for answer in seen)
            raise StepError(f"undecided at the stage's deadline; last seen: {last}")
        await asyncio.sleep(max(0.0, began + _LOOK_SECONDS - time.monotonic()))
    return {
        "since": since.isoformat(),
        "looks": look + 1,
        "verdicts": {agent: answer.model_dump(mode="json") for agent, answer in passed.items()},
    }


async def _more_answers(run: Run, stage: int, have: int, replica_ids: Sequence[str]) -> list[GoldenAnswer]:
    """The golden prompts up to the next look of the sequential test, none when the last one is reached."""
    target = next((look for look in LOOKS if look > have), have)
    if target == have:
        return []
    payload = GoldenPrompts(
        deployment=run.parameters.deployment,
        replica_ids=list(replica_ids),
        # Each stage draws samples of its own: the baseline's come first, then those of the stages before.
        offset=(stage + 1) * LOOKS[-1] + have,
        count=target - have,
    )
    output = await run.order_again(f"golden:{have}", "golden_prompts", payload)
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
        golden_answers=list(answers) if agent == "application" else [],
    )
    return await agents.ask(run.platform, agent, task, JudgeAnswer)
