"""The performance agent: what an interruption would do to latency."""

from dataclasses import replace
from typing import Any, cast

import pytest

from optiinfra.agents.base.agent import Sources
from optiinfra.agents.base.observed import Load, load_of
from optiinfra.agents.base.prediction import fit
from optiinfra.agents.perf_agent.validation import survives_interruption, validate
from optiinfra.api.customers import Slo
from optiinfra.api.parameters import SpotMigrationParameters
from tests.unit.agents.estate import HEAVY_LOAD, LOAD, deployment, idle_instance, infrastructure, instances
from tests.unit.agents.tasks import idle_shutdown_task, validation_task

NO_SOURCES = cast("Sources", None)


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


def test_one_replica_left_carries_the_sample_deployments_traffic() -> None:
    approved, reason = judged(LOAD)
    assert approved, reason
    assert "leaves 1 of 2 replicas" in reason
    assert "SLO of 10,000 ms" in reason


def test_one_replica_left_cannot_carry_its_twins() -> None:
    approved, reason = judged(HEAVY_LOAD, "p5.48xlarge")
    assert not approved
    assert "SLO would break" in reason


def test_a_third_replica_makes_the_difference() -> None:
    load = replace(HEAVY_LOAD, in_engine=22.0, p95_latency_ms=5000.0)
    assert judged(load, "p5.48xlarge", count=3)[0]


def test_an_objective_that_is_only_just_held_now_is_refused() -> None:
    approved, reason = judged(LOAD, slo=6_500)
    assert not approved
    assert "p95 about" in reason


def test_the_busiest_hour_counts_not_the_quiet_one_now() -> None:
    assert not judged(replace(LOAD, busiest=7.5))[0]


def test_a_single_replica_has_nothing_to_spare() -> None:
    approved, reason = judged(LOAD, count=1)
    assert not approved
    assert "leave none" in reason


@pytest.mark.parametrize("missing", ["requests_per_second", "prompt_tokens", "output_tokens"])
def test_what_was_never_measured_is_not_approved(missing: str) -> None:
    unmeasured: dict[str, Any] = {missing: None}
    approved, reason = judged(replace(LOAD, **unmeasured))
    assert not approved
    assert "not been measured" in reason


def test_what_is_not_measured_lately_is_taken_from_the_history() -> None:
    load = load_of(
        {"requests_running": 3.0, "requests_waiting": 1.0}, {"throughput": 2.0, "p95_latency_ms": 900.0}, 2.5
    )
    assert (load.in_engine, load.requests_per_second, load.p95_latency_ms, load.busiest) == (4.0, 2.0, 900.0, 2.5)
    assert load.prompt_tokens is None


def test_the_measured_mean_counts_for_more_than_what_runs_at_the_moment() -> None:
    slow, fast = (replace(LOAD, in_engine=1.0, mean_latency_ms=mean) for mean in (3900.0, 1950.0))
    estate = deployment(instances())
    patient, quick = (fit(estate, "p4de.24xlarge", 2, load).engine.slowness for load in (slow, fast))
    assert patient > 1.5 * quick


@pytest.mark.anyio
async def test_idle_shutdown_is_approved_when_no_instance_hosts_an_engine() -> None:
    found = await validate(idle_shutdown_task(idle_instance("i-8"), idle_instance("i-9")), NO_SOURCES)
    assert (found.agent_type, found.approved) == ("performance", True)
    assert "none of the 2 instances hosts an engine of any deployment" in found.reason


@pytest.mark.anyio
@pytest.mark.parametrize("state", ["starting", "ready", "draining"])
async def test_idle_shutdown_is_refused_when_an_instance_hosts_an_engine(state: str) -> None:
    found = await validate(idle_shutdown_task(idle_instance(), engine_state=state), NO_SOURCES)
    assert not found.approved
    assert found.reason == f"i-9 hosts replica r-i-9 of vllm-prod-1 ({state})"


@pytest.mark.anyio
async def test_idle_shutdown_is_approved_when_the_hosted_engine_is_dead() -> None:
    assert (await validate(idle_shutdown_task(idle_instance(), engine_state="dead"), NO_SOURCES)).approved


@pytest.mark.anyio
async def test_idle_shutdown_is_refused_when_an_instance_does_not_run() -> None:
    stopped = idle_instance(state="stopped")
    found = await validate(idle_shutdown_task(stopped), NO_SOURCES)
    assert (found.approved, found.reason) == (False, "i-9 is stopped, not running")


@pytest.mark.anyio
async def test_idle_shutdown_is_refused_when_an_instance_is_gone() -> None:
    task = idle_shutdown_task(idle_instance())
    gone = task.model_copy(update={"infrastructure": infrastructure([])})
    found = await validate(gone, NO_SOURCES)
    assert (found.approved, found.reason) == (False, "i-9 is missing from the inventory, not running")


@pytest.mark.anyio
async def test_unknown_recommendation_type_is_refused_with_the_types_that_have_rules() -> None:
    found = await validate(validation_task("quantization"), NO_SOURCES)
    assert not found.approved
    assert found.reason == (
        "the performance agent has no validation rule for quantization; it has rules for: idle_shutdown, spot_migration"
    )
