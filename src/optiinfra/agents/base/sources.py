"""What agents read: telemetry and past outcomes. They write to no store."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from optiinfra.agents.base.settings import AgentSettings
from optiinfra.domain.outcomes import Outcome
from optiinfra.kit.retries import retry_until_deadline
from optiinfra.stores.clickhouse import Telemetry
from optiinfra.stores.qdrant import OutcomeMemory


class TelemetryReader(Protocol):
    """The part of `stores.clickhouse.Telemetry` that agents use."""

    async def ping(self) -> None: ...

    async def means(self, customer_id: str, deployment_id: str, since: datetime) -> Mapping[str, float]: ...

    async def busiest_hour(self, customer_id: str, deployment_id: str, since: datetime) -> float | None: ...

    async def latencies(
        self, customer_id: str, deployment_id: str, since: datetime, replica_ids: Sequence[str] | None = None
    ) -> dict[float, float]: ...

    async def close(self) -> None: ...


class OutcomeReader(Protocol):
    """The part of `stores.qdrant.OutcomeMemory` that agents use."""

    async def ping(self) -> None: ...

    async def similar(
        self, customer_id: str, change_type: str, features: Sequence[float], limit: int = 5
    ) -> list[Outcome]: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """The stores of one running agent."""

    telemetry: TelemetryReader
    outcomes: OutcomeReader

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(self.outcomes.close(), return_exceptions=True)
        await self.telemetry.close()


async def connect(settings: AgentSettings, *, needs_outcomes: bool) -> Sources:
    """Connect to ClickHouse and, where outcomes are needed, wait for Qdrant; DeadlineError names what is missing."""
    deadline = settings.start_deadline_seconds
    outcomes = OutcomeMemory(settings.qdrant_url, settings.qdrant_api_key, settings.qdrant_collection)

    async def clickhouse() -> Telemetry:
        telemetry = await asyncio.to_thread(
            Telemetry.connect,
            settings.clickhouse_url,
            settings.clickhouse_user,
            settings.clickhouse_password,
            settings.clickhouse_database,
        )
        await telemetry.ping()
        return telemetry

    telemetry = await retry_until_deadline(clickhouse, f"ClickHouse at {settings.clickhouse_url}", deadline)
    if needs_outcomes:
        await retry_until_deadline(outcomes.ping, f"Qdrant at {settings.qdrant_url}", deadline)
    return Sources(telemetry, outcomes)
