"""Fitting the performance model to a measured load."""

from dataclasses import replace

from optiinfra.agents.base.prediction import fit
from tests.unit.agents.estate import LOAD, deployment, instances


def test_fit_prefers_measured_mean_latency_to_running_requests() -> None:
    slow, fast = (replace(LOAD, in_engine=1.0, mean_latency_ms=mean) for mean in (3900.0, 1950.0))
    estate = deployment(instances())
    slow_engine, fast_engine = (fit(estate, "p4de.24xlarge", 2, load).engine.slowness for load in (slow, fast))
    assert slow_engine > 1.5 * fast_engine
