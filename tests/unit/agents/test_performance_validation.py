"""The performance agent: what an interruption would do to latency."""

from dataclasses import replace
from typing import Any

import pytest

from optiinfra.agents.base.observed import Load, load_of
from optiinfra.agents.base.prediction import fit
from optiinfra.agents.perf_agent.validation import survives_interruption
from optiinfra.api.customers import Slo
from optiinfra.api.parameters import SpotMigrationParameters
from tests.unit.agents.estate import HEAVY_LOAD, LOAD, deployment, instances


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
