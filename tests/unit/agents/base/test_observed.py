"""Waiting for a runtime's first measurement, but not for ever, and not where there is nothing to measure."""

from collections.abc import Mapping
from datetime import datetime
from typing import cast

import pytest

from optiinfra.agents.base import observed
from optiinfra.agents.base.observed import observe
from optiinfra.api.common import now
from optiinfra.stores.clickhouse import Telemetry

pytestmark = pytest.mark.anyio
HISTORY = {"throughput": 2.0, "p95_latency_ms": 900.0}
GAUGES = {"requests_running": 3.0, "requests_waiting": 0.0}
FULL = GAUGES | {"throughput": 2.5, "prompt_tokens_per_request": 800.0, "output_tokens_per_request": 200.0}


class FakeTelemetry:
    """Telemetry whose recent means grow from call to call."""

    def __init__(self, *recent: Mapping[str, float]) -> None:
        self.recent, self.looks = list(recent), 0

    async def means(self, _customer: str, _deployment: str, since: datetime) -> Mapping[str, float]:
        if now() - since > 2 * observed.RECENT:
            return HISTORY
        self.looks += 1
        return self.recent.pop(0) if len(self.recent) > 1 else self.recent[0]

    async def busiest_hour(self, _customer: str, _deployment: str, _since: datetime) -> float | None:
        return 2.3


async def looked_at(monkeypatch: pytest.MonkeyPatch, *recent: Mapping[str, float]) -> tuple[observed.Load, int]:
    monkeypatch.setattr(observed, "FIRST_MEASUREMENT_SECONDS", 0.5)
    telemetry = FakeTelemetry(*recent)
    return await observe(cast("Telemetry", telemetry), "c", "d"), telemetry.looks


async def test_the_first_rates_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    load, looks = await looked_at(monkeypatch, {}, GAUGES, FULL)
    assert (load.requests_per_second, load.prompt_tokens, load.busiest, looks) == (2.5, 800.0, 2.3, 3)


async def test_an_hour_of_history_among_the_recent_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    load, _ = await looked_at(monkeypatch, GAUGES | HISTORY, FULL)
    assert load.output_tokens == 200.0


async def test_an_idle_deployment_is_measured_without_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    load, looks = await looked_at(monkeypatch, GAUGES | {"throughput": 0.0})
    assert (load.requests_per_second, load.output_tokens, looks) == (0.0, None, 1)


async def test_without_a_runtime_only_the_history_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    load, looks = await looked_at(monkeypatch, {})
    assert (load.requests_per_second, load.in_engine) == (2.0, None)
    assert looks > 1
