"""What an agent's answer must satisfy beyond its shape: it speaks of what was asked, and of nothing else."""

from typing import TypeVar

from optiinfra.api.agents import (
    AnalyzeAnswer,
    AnalyzeTask,
    Draft,
    JudgeAnswer,
    JudgeTask,
    TaskAnswer,
    ValidateTask,
    Validation,
)
from optiinfra.api.customers import Infrastructure
from optiinfra.api.parameters import PARAMETERS, IdleShutdownParameters, Parameters, SpotMigrationParameters
from optiinfra.domain.recommendation import TYPES_OF, AgentType

Task = AnalyzeTask | ValidateTask | JudgeTask
Answer = TypeVar("Answer", AnalyzeAnswer, Validation, JudgeAnswer)

_ROUNDING_DOLLARS = 0.01


def valid_answer(agent_type: AgentType, task: Task, answer_type: type[Answer], content: bytes) -> Answer:
    """The answer to a task, from JSON; ValueError says what is wrong with one that this task cannot have."""
    answer = answer_type.model_validate_json(content)
    if error := _error_of(agent_type, task, answer):
        raise ValueError(error)
    return answer


def _error_of(agent_type: AgentType, task: Task, answer: TaskAnswer) -> str | None:
    if isinstance(answer, AnalyzeAnswer):
        assert isinstance(task, AnalyzeTask)
        errors = (_error_of_draft(agent_type, task.infrastructure, draft) for draft in answer.drafts)
        return next((f"draft {number}: {error}" for number, error in enumerate(errors, start=1) if error), None)
    if answer.agent_type != agent_type:
        return f"it is signed by the {answer.agent_type} agent, but the {agent_type} agent was asked"
    if isinstance(answer, JudgeAnswer) and answer.decision != "continue" and answer.observations == 0:
        return f"the decision is {answer.decision} without any observation"
    return None


def _error_of_draft(agent_type: AgentType, estate: Infrastructure, draft: Draft) -> str | None:
    if draft.type not in TYPES_OF[agent_type]:
        return f"a {agent_type} agent may not recommend {draft.type}"
    deployments = {each.deployment_id: each.name for each in estate.vllm_deployments}
    if draft.deployment_id is not None and draft.deployment_id not in deployments:
        return f"the customer has no deployment {draft.deployment_id}"
    known = deployments.keys() | {each.instance_id for each in estate.instances}
    if unknown := sorted(set(draft.affected_resources) - known):
        return f"the customer has no resource {', '.join(unknown)}"
    if error := _error_of_savings(estate, draft):
        return error
    if draft.type in PARAMETERS:
        parameters = PARAMETERS[draft.type].model_validate(draft.parameters)
        return _error_of_parameters(parameters, estate, draft)
    return None


def _error_of_savings(estate: Infrastructure, draft: Draft) -> str | None:
    """No change saves more than its resources cost: the instances, and those of the deployments."""
    affected = set(draft.affected_resources)
    for deployment in estate.vllm_deployments:
        if deployment.deployment_id in affected:
            affected |= {engine.instance_id for engine in deployment.engines}
    cost, savings = estate.cost_of(affected), draft.estimated_savings
    if savings <= _ROUNDING_DOLLARS:
        return None
    if cost is None:
        return f"it saves ${savings:,.2f} a month, but the cost of its resources is not known"
    if savings > cost + _ROUNDING_DOLLARS:
        return f"it saves ${savings:,.2f} a month, but its resources cost ${cost:,.2f}"
    return None


def _error_of_parameters(parameters: Parameters, estate: Infrastructure, draft: Draft) -> str | None:
    """A change may touch only the resources that it declares: conflicts with other changes are found by these."""
    deployment = None if draft.deployment_id is None else estate.deployment(draft.deployment_id)
    if isinstance(parameters, IdleShutdownParameters):
        name, instances, allowed = None, parameters.instance_ids, {each.instance_id for each in estate.instances}
    else:
        name, instances = parameters.deployment, parameters.source_instance_ids
        allowed = {engine.instance_id for engine in deployment.engines} if deployment else set()
    if name != (deployment.name if deployment else None):
        return f"its parameters are for deployment {name}, but it is for {deployment.name if deployment else None}"
    if undeclared := sorted(set(instances) - set(draft.affected_resources)):
        return f"its affected resources lack {', '.join(undeclared)}"
    if foreign := sorted(set(instances) - allowed):
        return f"deployment {name} does not run on {', '.join(foreign)}"
    if len(set(instances)) != len(instances):
        return "its parameters name an instance twice"
    if isinstance(parameters, SpotMigrationParameters):
        return _error_of_migration(parameters, estate)
    return None


def _error_of_migration(parameters: SpotMigrationParameters, estate: Infrastructure) -> str | None:
    """The new instances are like those that they replace: the risk depends on what they are, and how many."""
    sources = parameters.source_instance_ids
    if parameters.count != len(sources):
        return f"it replaces {len(sources)} instances by {parameters.count}"
    named = parameters.provider, parameters.region, parameters.instance_type
    for each in estate.instances:
        if each.instance_id in sources and (each.provider, each.region, each.instance_type) != named:
            return f"it replaces {each.instance_id} by {' '.join(named)}"
    return None
