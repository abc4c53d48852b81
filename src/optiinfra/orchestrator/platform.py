"""What every concept of the orchestrator reaches: stores, clouds, peers and settings."""

from dataclasses import dataclass
from typing import Annotated

import httpx
from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from optiinfra.clouds.price_book import PriceBook
from optiinfra.orchestrator.settings import Settings
from optiinfra.stores.clickhouse import Telemetry
from optiinfra.stores.postgres.database import Database
from optiinfra.stores.qdrant import OutcomeMemory
from optiinfra.stores.redis import Presence, WakeUp


@dataclass(frozen=True, slots=True)
class Platform:
    """Connections, opened once at start."""

    settings: Settings
    database: Database
    telemetry: Telemetry
    memory: OutcomeMemory
    wake: WakeUp
    presence: Presence
    agents_http: httpx.AsyncClient
    prices: PriceBook


def of_connection(connection: HTTPConnection) -> Platform:
    """The platform that serves this call."""
    platform: Platform = connection.app.state.platform
    return platform


def _of_request(request: Request) -> Platform:
    return of_connection(request)


CurrentPlatform = Annotated[Platform, Depends(_of_request)]
