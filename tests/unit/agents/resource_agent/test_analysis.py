"""The resource agent's analysis."""

import asyncio

import pytest

from optiinfra.agents.base.observed import Load
from optiinfra.agents.resource_agent import analysis
from optiinfra.api.agents import AnalyzeTask
from optiinfra.api.customers import Preferences
from tests.unit.agents.estate import LOAD, deployment, infrastructure, instances
from tests.unit.agents.fakes import fake_sources

pytestmark = pytest.mark.anyio


async def test_analysis_observes_deployments_concurrently(monkeypatch: pytest.MonkeyPatch) -> None:
    all_begun = asyncio.Barrier(20)

    async def observe(_telemetry: object, _customer_id: str, _deployment_id: str) -> Load:
        await all_begun.wait()
        return LOAD

    monkeypatch.setattr(analysis, "observe", observe)
    owned = instances()
    several = [deployment(owned, deployment_id=f"dep_{number}", name=f"vllm-{number}") for number in range(20)]
    task = AnalyzeTask(
        task_id="t", customer_id="c", preferences=Preferences(), infrastructure=infrastructure(owned, *several)
    )
    async with asyncio.timeout(10):  # one after the other, the first would wait for ever
        found = await analysis.analyze(task, fake_sources())
    described = found.summary.split("; ")
    assert [text.partition(" ")[0] for text in described] == [f"vllm-{number}" for number in range(20)]
    assert described[0] == (
        "vllm-0 (2 replicas): GPUs 90% busy, KV cache 1% full, 0.0 requests waiting per replica, "
        "2.00 requests per second"
    )
