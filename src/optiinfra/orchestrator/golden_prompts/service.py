"""Asking golden prompts of a customer's replicas, through their runtime."""

from collections.abc import Sequence

from optiinfra.api.customers import Deployment
from optiinfra.api.runtimes import GoldenAnswer, GoldenPrompts
from optiinfra.domain.quality import INTERIM_ANALYSES
from optiinfra.orchestrator.runtimes.client import Runtime


async def ask_baseline(runtime: Runtime, recommendation_id: str, deployment: Deployment) -> list[GoldenAnswer]:
    """Answers of the serving replicas before the change. Asked once per recommendation; raises CommandError."""
    serving = [replica for replica, weight in deployment.weights.items() if weight > 0]
    key = f"{recommendation_id}:baseline"
    return await ask(runtime, key, deployment.name, serving, range(INTERIM_ANALYSES[-1]))


async def ask(
    runtime: Runtime, key: str, deployment: str, replica_ids: Sequence[str], prompts: range
) -> list[GoldenAnswer]:
    """Answers of these replicas to these prompt numbers, once per idempotency key; raises CommandError.

    The same number is the same prompt under the same sampling seed, so that answers can be compared one by one.
    """
    payload = GoldenPrompts(
        deployment=deployment, replica_ids=list(replica_ids), offset=prompts.start, count=len(prompts)
    )
    output = await runtime.execute(key, "golden_prompts", payload)
    return [GoldenAnswer.model_validate(answer) for answer in output["answers"]]
