"""The resource agent: how busy each deployment is, in words, however many there are."""

import asyncio
import time
from typing import cast

import pytest

from optiinfra.agents.base.agent import Sources
from optiinfra.agents.base.observed import Load
from optiinfra.agents.resource_agent import analysis
from optiinfra.api.agents import AnalyzeTask
from optiinfra.api.customers import Preferences
from tests.unit.agents.estate import LOAD, deployment, infrastructure, instances

pytestmark = pytest.mark.anyio


class Stores:
    """Telemetry that is never asked itself."""

    telemetry = None


async def test_deployments_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    async def observe(_telemetry: object, _customer_id: str, _deployment_id: str) -> Load:
        await asyncio.sleep(0.1)
        return LOAD

    monkeypatch.setattr(analysis, "observe", observe)
    owned = instances()
    several = [deployment(owned, deployment_id=f"dep_{number}", name=f"vllm-{number}") for number in range(20)]
    task = AnalyzeTask(
        task_id="t", customer_id="c", preferences=Preferences(), infrastructure=infrastructure(owned, *several)
    )
    began = time.monotonic()
    found = await analysis.analyze(task, cast("Sources", Stores()))
    assert time.monotonic() - began < 1.0
    said = found.summary.split("; ")
    assert [words.partition(" ")[0] for words in said] == [f"vllm-{number}" for number in range(20)]
    assert said[0] == (
        "vllm-0 (2 replicas): GPUs 90% busy, KV cache 1% full, 0.0 requests waiting a replica, 2.00 requests a second"
    )
