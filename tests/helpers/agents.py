"""Tasks that a test gives to a running agent itself, as the orchestrator does."""

from typing import Any, TypeVar

import httpx

from optiinfra.api.agents import AnalyzeTask, JudgeTask, ValidateTask
from optiinfra.api.common import Wire
from optiinfra.domain.recommendation import AgentType
from optiinfra.kit.task_requests import TaskSigner
from testbed.waiting import stretched
from tests.helpers.callers import bearer

Answer = TypeVar("Answer", bound=Wire)

TASK_SECONDS = 30.0


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
        body = task.model_dump_json().encode()
        token = TaskSigner(credentials["task_signing_key"]).sign(agent["agent_id"], task.task_id, body)
        headers = bearer(token) | {"Content-Type": "application/json"}
        answer = http.post(f"{address}/tasks", content=body, headers=headers)
    assert answer.is_success, f"{task.kind} answered {answer.status_code}: {answer.text}"
    return answer_type.model_validate(answer.json())
