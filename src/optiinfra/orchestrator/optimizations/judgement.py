"""Sequential judgement by agents: looks at fresh measurements until an agent is sure."""

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
"""Least time between two looks: telemetry of a shorter one would hardly hold anything new."""

Look = Callable[[int], Awaitable[JudgeAnswer]]
"""One look, by its number from 1."""


def deadline_of(context: StepContext[Any, Any]) -> float:
    """When a judgement that begins now must be sure, by the monotonic clock."""
    return time.monotonic() + context.platform.settings.stage_deadline_seconds


async def ask(context: StepContext[Any, Any], agent: AgentType, task: JudgeTask) -> JudgeAnswer:
    """One agent's answer; raises AgentError."""
    return await dispatch_task(context.platform, agent, task, JudgeAnswer)


async def look_until_sure(look: Look, deadline: float) -> JudgeAnswer:
    """Look until the verdict is a pass. Raises StepError on a fail, and when the agent is not sure at the deadline.

    Time alone passes nothing.
    """
    for number in itertools.count(1):
        began = time.monotonic()
        answer = await look(number)
        if answer.decision == "pass":
            return answer
        if answer.decision == "fail":
            raise StepError(f"the {answer.agent_type} agent fails it: {answer.reason}")
        if time.monotonic() > deadline:
            raise StepError(f"the {answer.agent_type} agent is not sure at the stage's deadline: {answer.reason}")
        await asyncio.sleep(max(0.0, began + _LOOK_SECONDS - time.monotonic()))
    raise AssertionError("there is always another look")
