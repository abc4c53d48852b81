"""The route of metrics."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from optiinfra.api.common import Moment, now
from optiinfra.api.telemetry import MetricPoint, MetricType
from optiinfra.kit.auth import CurrentPrincipal
from optiinfra.orchestrator.access import require_tenant
from optiinfra.orchestrator.platform import CurrentPlatform
from optiinfra.orchestrator.telemetry import service

router = APIRouter()

_DEFAULT_SPAN = timedelta(days=8)


@router.get("/customers/{customer_id}/metrics")
async def metrics(
    customer_id: str,
    metric_type: MetricType,
    principal: CurrentPrincipal,
    platform: CurrentPlatform,
    start_time: Moment | None = None,
    end_time: Moment | None = None,
    resource_id: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=20_000)] = 10_000,
) -> list[MetricPoint]:
    """One metric over time, oldest first; by default of the last eight days."""
    require_tenant(principal, customer_id)
    end = end_time or now()
    start = start_time or end - _DEFAULT_SPAN
    return await service.series(platform, customer_id, metric_type, start, end, resource_id, limit)
