"""Measuring a deployment's load, and how long the first measurement is waited for."""

from collections.abc import Mapping

import pytest

from optiinfra.agents.base import observed
from optiinfra.agents.base.observed import load_of, observe
from tests.unit.agents.fakes import FakeTelemetry

pytestmark = pytest.mark.anyio
HISTORY = {"throughput": 2.0, "p95_latency_ms": 900.0}
GAUGES = {"requests_running": 3.0, "requests_waiting": 0.0}
FULL = GAUGES | {"throughput": 2.5, "prompt_tokens_per_request": 800.0, "output_tokens_per_request": 200.0}


async def observed_load(monkeypatch: pytest.MonkeyPatch, *recent: Mapping[str, float]) -> tuple[observed.Load, int]:
    """The load, and how often the recent means were read."""
    monkeypatch.setattr(observed, "FIRST_MEASUREMENT_SECONDS", 0.5)
    telemetry = FakeTelemetry(list(recent), HISTORY, busiest=2.3)
    return await observe(telemetry, "c", "d"), telemetry.recent_calls


async def test_observe_new_deployment_waits_for_the_first_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    load, calls = await observed_load(monkeypatch, {}, GAUGES, FULL)
    assert (load.requests_per_second, load.prompt_tokens, load.busiest, calls) == (2.5, 800.0, 2.3, 3)


async def test_observe_backfilled_history_among_recent_means_is_not_a_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load, _ = await observed_load(monkeypatch, GAUGES | HISTORY, FULL)
    assert load.output_tokens == 200.0


async def test_observe_idle_deployment_does_not_wait_for_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    load, calls = await observed_load(monkeypatch, GAUGES | {"throughput": 0.0})
    assert (load.requests_per_second, load.output_tokens, calls) == (0.0, None, 1)


async def test_observe_without_runtime_uses_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    load, calls = await observed_load(monkeypatch, {})
    assert (load.requests_per_second, load.in_engine) == (2.0, None)
    assert calls > 1


def test_load_of_fills_in_what_was_not_measured_recently_from_the_history() -> None:
    load = load_of(
        {"requests_running": 3.0, "requests_waiting": 1.0}, {"throughput": 2.0, "p95_latency_ms": 900.0}, 2.5
    )
    assert (load.in_engine, load.requests_per_second, load.p95_latency_ms, load.busiest) == (4.0, 2.0, 900.0, 2.5)
    assert load.prompt_tokens is None
