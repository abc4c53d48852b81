"""Tasks that a test gives to a running agent itself, as the orchestrator does."""

import time
from typing import Any, TypeVar

import httpx
import jwt

from optiinfra.api.agents import AnalyzeTask, JudgeTask, ValidateTask
from optiinfra.api.common import Wire
from optiinfra.domain.recommendation import AgentType
from testbed.waiting import stretched
from tests.helpers.callers import bearer

Answer = TypeVar("Answer", bound=Wire)

TASK_SECONDS = 30.0
_TOKEN_SECONDS = 600


def ask_agent(
    environment: dict[str, Any],
    agent_type: AgentType,
    task: AnalyzeTask | ValidateTask | JudgeTask,
    answer_type: type[Answer],
) -> Answer:
    """The answer of the environment's own agent of that type."""
    credentials, address = environment["credentials"], environment["urls"][f"{agent_type}-agent"]
    with httpx.Client(timeout=stretched(TASK_SECONDS)) as http:
        listed = http.get(
            f"{environment['urls']['orchestrator']}/orchestrator/agents", headers=bearer(credentials["admin_token"])
        )
        listed.raise_for_status()
        (agent,) = (one for one in listed.json() if (one["base_url"], one["status"]) == (address, "active"))
        claims = {"aud": agent["agent_id"], "sub": "orchestrator", "exp": int(time.time()) + _TOKEN_SECONDS}
        token = jwt.encode(claims, credentials["enrolment_secret"], algorithm="HS256")
        headers = bearer(token) | {"Content-Type": "application/json"}
        answer = http.post(f"{address}/tasks", content=task.model_dump_json(), headers=headers)
    assert answer.is_success, f"{task.kind} answered {answer.status_code}: {answer.text}"
    return answer_type.model_validate(answer.json())
