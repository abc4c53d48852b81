"""In-memory stores for agents: `TelemetryReader` and `OutcomeReader` without a server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from optiinfra.agents.base.observed import RECENT
from optiinfra.agents.base.sources import OutcomeReader, Sources, TelemetryReader
from optiinfra.api.common import now
from optiinfra.domain.outcomes import Outcome


@dataclass
class FakeTelemetry(TelemetryReader):
    """`recent` are the means of the last minutes, one entry a call and the last one repeated; `history` the week's."""

    recent: list[Mapping[str, float]] = field(default_factory=lambda: [{}])
    history: Mapping[str, float] = field(default_factory=dict)
    busiest: float | None = None
    recent_calls: int = 0
    closed: bool = False

    async def ping(self) -> None:
        """Always available."""

    async def means(self, customer_id: str, deployment_id: str, since: datetime) -> Mapping[str, float]:
        if now() - since > 2 * RECENT:
            return self.history
        self.recent_calls += 1
        return self.recent.pop(0) if len(self.recent) > 1 else self.recent[0]

    async def busiest_hour(self, customer_id: str, deployment_id: str, since: datetime) -> float | None:
        return self.busiest

    async def latencies(
        self, customer_id: str, deployment_id: str, since: datetime, replica_ids: Sequence[str] | None = None
    ) -> dict[float, float]:
        return {}

    async def close(self) -> None:
        self.closed = True


@dataclass
class FakeOutcomes(OutcomeReader):
    """Every search finds all `outcomes`; `searches` are the customers and change types that were searched for."""

    outcomes: list[Outcome] = field(default_factory=list)
    searches: list[tuple[str, str]] = field(default_factory=list)
    closed: bool = False

    async def ping(self) -> None:
        """Always available."""

    async def similar(
        self, customer_id: str, change_type: str, features: Sequence[float], limit: int = 5
    ) -> list[Outcome]:
        self.searches.append((customer_id, change_type))
        return self.outcomes

    async def close(self) -> None:
        self.closed = True


def fake_sources(telemetry: FakeTelemetry | None = None, outcomes: FakeOutcomes | None = None) -> Sources:
    """Sources over these stores, or empty ones."""
    return Sources(telemetry or FakeTelemetry(), outcomes or FakeOutcomes())
