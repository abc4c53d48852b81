"""Tasks that a test gives to a running agent itself, as the orchestrator does."""

from typing import Any, TypeVar, get_args
from urllib.parse import urlsplit

import httpx

from optiinfra.api.agents import AnalyzeTask, JudgeTask, ValidateTask
from optiinfra.api.common import Wire
from optiinfra.domain.recommendation import AgentType
from optiinfra.kit.task_requests import TaskSigner
from testbed.waiting import stretched
from tests.helpers.callers import bearer

Answer = TypeVar("Answer", bound=Wire)

TASK_SECONDS = 30.0


def own_agents(environment: dict[str, Any]) -> dict[str, str]:
    """Ids of the environment's own active agents, by type.

    They are recognized by their ports: the hosts in their addresses are those of their network.
    """
    orchestrator, admin = environment["urls"]["orchestrator"], environment["credentials"]["admin_token"]
    listed = httpx.get(f"{orchestrator}/orchestrator/agents", headers=bearer(admin), timeout=stretched(TASK_SECONDS))
    listed.raise_for_status()
    ports = {kind: urlsplit(environment["inner_urls"][f"{kind}-agent"]).port for kind in get_args(AgentType)}
    return {
        one["agent_type"]: one["agent_id"]
        for one in listed.json()
        if one["status"] == "active" and urlsplit(one["base_url"]).port == ports[one["agent_type"]]
    }


def ask_agent(
    environment: dict[str, Any],
    agent_type: AgentType,
    task: AnalyzeTask | ValidateTask | JudgeTask,
    answer_type: type[Answer],
) -> Answer:
    """The answer of the environment's own agent of that type."""
    credentials, address = environment["credentials"], environment["urls"][f"{agent_type}-agent"]
    body = task.model_dump_json().encode()
    token = TaskSigner(credentials["task_signing_key"]).sign(own_agents(environment)[agent_type], task.task_id, body)
    headers = bearer(token) | {"Content-Type": "application/json"}
    answer = httpx.post(f"{address}/tasks", content=body, headers=headers, timeout=stretched(TASK_SECONDS))
    assert answer.is_success, f"{task.kind} answered {answer.status_code}: {answer.text}"
    return answer_type.model_validate(answer.json())
