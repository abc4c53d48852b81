"""The performance agent's validation rules."""

from dataclasses import replace
from typing import Any

import pytest

from optiinfra.agents.base.observed import Load
from optiinfra.agents.perf_agent.validation import survives_interruption, validate
from optiinfra.api.customers import Slo
from optiinfra.api.parameters import SpotMigrationParameters
from tests.unit.agents.estate import HEAVY_LOAD, LOAD, deployment, idle_instance, infrastructure, instances
from tests.unit.agents.fakes import fake_sources
from tests.unit.agents.tasks import idle_shutdown_task, validation_task


def judged(load: Load, instance_type: str = "p4de.24xlarge", count: int = 2, slo: float = 10_000) -> tuple[bool, str]:
    owned = instances(count, instance_type)
    parameters = SpotMigrationParameters(
        deployment="vllm-prod-1",
        provider="aws",
        region="us-east-1",
        instance_type=instance_type,
        count=count,
        source_instance_ids=[],
        spot_price=1,
        ondemand_price=2,
        interruptions_per_month=0.1,
    )
    return survives_interruption(deployment(owned, slo=Slo(p95_latency_ms=slo, quality=0.9)), parameters, load)


def test_spot_migration_whose_remaining_replica_meets_the_slo_is_approved() -> None:
    approved, reason = judged(LOAD)
    assert approved, reason
    assert "leaves 1 of 2 replicas" in reason
    assert "SLO of 10,000 ms" in reason


def test_spot_migration_whose_remaining_replica_is_overloaded_is_refused() -> None:
    approved, reason = judged(HEAVY_LOAD, "p5.48xlarge")
    assert not approved
    assert "SLO would break" in reason


def test_spot_migration_with_a_third_replica_is_approved() -> None:
    load = replace(HEAVY_LOAD, in_engine=22.0, p95_latency_ms=5000.0)
    assert judged(load, "p5.48xlarge", count=3)[0]


def test_spot_migration_with_a_barely_met_slo_is_refused() -> None:
    approved, reason = judged(LOAD, slo=6_500)
    assert not approved
    assert "p95 about" in reason


def test_spot_migration_is_judged_by_the_busiest_hour() -> None:
    assert not judged(replace(LOAD, busiest=7.5))[0]


def test_spot_migration_of_a_single_replica_is_refused() -> None:
    approved, reason = judged(LOAD, count=1)
    assert not approved
    assert "leave none" in reason


@pytest.mark.parametrize("missing", ["requests_per_second", "prompt_tokens", "output_tokens"])
def test_spot_migration_without_measured_traffic_is_refused(missing: str) -> None:
    unmeasured: dict[str, Any] = {missing: None}
    approved, reason = judged(replace(LOAD, **unmeasured))
    assert not approved
    assert "not been measured" in reason


@pytest.mark.anyio
async def test_idle_shutdown_is_approved_when_no_instance_hosts_an_engine() -> None:
    found = await validate(idle_shutdown_task(idle_instance("i-8"), idle_instance("i-9")), fake_sources())
    assert (found.agent_type, found.approved) == ("performance", True)
    assert "no engine of any deployment runs on these instances" in found.reason


@pytest.mark.anyio
@pytest.mark.parametrize("state", ["starting", "ready", "draining"])
async def test_idle_shutdown_is_refused_when_an_instance_hosts_an_engine(state: str) -> None:
    found = await validate(idle_shutdown_task(idle_instance(), engine_state=state), fake_sources())
    assert not found.approved
    assert found.reason == f"i-9 hosts replica r-i-9 of vllm-prod-1 ({state})"


@pytest.mark.anyio
async def test_idle_shutdown_is_approved_when_the_hosted_engine_is_dead() -> None:
    assert (await validate(idle_shutdown_task(idle_instance(), engine_state="dead"), fake_sources())).approved


@pytest.mark.anyio
async def test_idle_shutdown_is_refused_when_an_instance_does_not_run() -> None:
    stopped = idle_instance(state="stopped")
    found = await validate(idle_shutdown_task(stopped), fake_sources())
    assert (found.approved, found.reason) == (False, "i-9 is stopped, not running")


@pytest.mark.anyio
async def test_idle_shutdown_is_refused_when_an_instance_is_gone() -> None:
    task = idle_shutdown_task(idle_instance())
    gone = task.model_copy(update={"infrastructure": infrastructure([])})
    found = await validate(gone, fake_sources())
    assert (found.approved, found.reason) == (False, "i-9 is missing from the inventory, not running")


@pytest.mark.anyio
async def test_unknown_recommendation_type_is_refused_with_the_types_that_have_rules() -> None:
    found = await validate(validation_task("quantization"), fake_sources())
    assert not found.approved
    assert found.reason == (
        "the performance agent has no validation rule for quantization; it has rules for: idle_shutdown, spot_migration"
    )
