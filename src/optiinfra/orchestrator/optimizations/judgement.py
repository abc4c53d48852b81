"""Sequential judgement by agents: interim analyses of fresh measurements until the verdict is conclusive."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

from optiinfra.api.agents import JudgeAnswer, JudgeTask
from optiinfra.domain.recommendation import AgentType
from optiinfra.orchestrator.agents.dispatch import dispatch_task
from optiinfra.orchestrator.optimizations.context import StepContext, StepError

_LOOK_SECONDS = 0.25
"""Minimum interval between interim analyses. A shorter one would hardly see new telemetry."""

Look = Callable[[int], Awaitable[JudgeAnswer]]
"""One interim analysis, by its number from 1."""


def deadline_of(context: StepContext[Any, Any]) -> float:
    """When a judgement that starts now must be conclusive, by the monotonic clock."""
    return time.monotonic() + context.platform.settings.stage_deadline_seconds


async def ask(context: StepContext[Any, Any], agent: AgentType, task: JudgeTask) -> JudgeAnswer:
    """One agent's answer; raises AgentError."""
    return await dispatch_task(context.platform, agent, task, JudgeAnswer)


async def judge_until_conclusive(look: Look, deadline: float) -> JudgeAnswer:
    """Repeat the interim analysis until the verdict is conclusive; the verdict of a pass.

    Raises StepError on a fail, and when there is no verdict at the deadline: a timeout never passes a stage.
    """
    for number in itertools.count(1):
        began = time.monotonic()
        answer = await look(number)
        if answer.decision == "pass":
            return answer
        if answer.decision == "fail":
            raise StepError(f"the {answer.agent_type} agent rejected the stage: {answer.reason}")
        if time.monotonic() > deadline:
            late = f"the {answer.agent_type} agent reached no verdict before the stage's deadline"
            raise StepError(f"{late}: {answer.reason}")
        await asyncio.sleep(max(0.0, began + _LOOK_SECONDS - time.monotonic()))
    raise AssertionError("unreachable")
