"""The connections and settings that all concepts of the orchestrator share."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated

import httpx
from cachetools import LRUCache
from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from optiinfra.clouds.price_book import PriceBook
from optiinfra.kit.bulkhead import Bulkhead
from optiinfra.kit.shared_runs import SharedRuns
from optiinfra.orchestrator.settings import Settings
from optiinfra.stores.audit_heads import AuditHeads
from optiinfra.stores.clickhouse import Telemetry
from optiinfra.stores.postgres.database import Database
from optiinfra.stores.qdrant import OutcomeMemory
from optiinfra.stores.rate_limits import Lockouts, RateLimits
from optiinfra.stores.redis import Presence, WakeUp

_KNOWN_RUNTIMES = 10_000
_REQUESTS = 8
_CHANGES = 4


@dataclass(frozen=True, slots=True)
class Platform:
    """Connections, opened once at the start, and settings."""

    settings: Settings
    database: Database
    telemetry: Telemetry
    memory: OutcomeMemory
    wake: WakeUp
    presence: Presence
    rate_limits: RateLimits
    lockouts: Lockouts
    audit_heads: AuditHeads
    agents_http: httpx.AsyncClient
    prices: PriceBook
    tasks_in_flight: Counter[str] = field(default_factory=Counter)
    """How many tasks this process has sent to each agent and not got back, by agent id."""
    streams: Counter[str] = field(default_factory=Counter)
    """How many event streams this process serves, by customer id."""
    event_pages: SharedRuns[list[tuple[int, str]]] = field(default_factory=SharedRuns)
    """The events that streams are reading, by customer and the number before."""
    session_checks: SharedRuns[bool] = field(default_factory=SharedRuns)
    """The sessions that streams are checking."""
    requests: Bulkhead = field(default_factory=lambda: Bulkhead(_REQUESTS))
    """The requests that this process carries out, by caller. The event loop serves them in the order of their arrival:
    hundreds of one caller would delay all others."""
    reads: Bulkhead = field(default_factory=lambda: Bulkhead(_REQUESTS))
    """The reads that it carries out, by customer id: a customer may have many credentials."""
    changes: Bulkhead = field(default_factory=lambda: Bulkhead(_CHANGES))
    """The changes that it carries out, by customer id."""
    audit_appends: Bulkhead = field(default_factory=lambda: Bulkhead(1))
    """The audit entries that it appends, by chain."""
    known_runtimes: "LRUCache[tuple[str, str], None]" = field(default_factory=lambda: LRUCache(_KNOWN_RUNTIMES))
    """Runtimes and the tokens that they connected with, by their ids, as far as they were looked up lately."""


def of_connection(connection: HTTPConnection) -> Platform:
    """The platform that serves this request or WebSocket."""
    platform: Platform = connection.app.state.platform
    return platform


async def _of_request(request: Request) -> Platform:
    return of_connection(request)  # FastAPI would run a synchronous dependency in a thread


CurrentPlatform = Annotated[Platform, Depends(_of_request)]
