"""The resource agent's analysis: utilization of each deployment's engines."""

import asyncio

from optiinfra.agents.base.observed import Load, observe
from optiinfra.agents.base.sources import Sources
from optiinfra.agents.base.summary import summary_of
from optiinfra.api.agents import AnalyzeAnswer, AnalyzeTask


def describe(name: str, replicas: int, load: Load) -> str:
    """One deployment's utilization as text; figures that were not measured are left out."""
    figures = [
        text
        for value, text in (
            (load.gpu_utilization, f"GPUs {load.gpu_utilization or 0.0:.0%} busy"),
            (load.kv_cache_usage, f"KV cache {load.kv_cache_usage or 0.0:.0%} full"),
            (load.waiting, f"{load.waiting or 0.0:.1f} requests waiting per replica"),
            (load.requests_per_second, f"{load.requests_per_second or 0.0:.2f} requests per second"),
        )
        if value is not None
    ]
    return f"{name} ({replicas} replicas): {', '.join(figures) or 'not measured yet'}"


async def analyze(task: AnalyzeTask, sources: Sources) -> AnalyzeAnswer:
    """Report the utilization of every deployment."""
    deployments = task.infrastructure.vllm_deployments
    # Concurrently, because each may wait for a deployment's first measurement.
    loads = await asyncio.gather(
        *(observe(sources.telemetry, task.customer_id, deployment.deployment_id) for deployment in deployments)
    )
    described = [
        describe(deployment.name, deployment.replicas, load)
        for deployment, load in zip(deployments, loads, strict=True)
    ]
    return AnalyzeAnswer(drafts=[], summary=summary_of(described, "there is no deployment yet"))
