"""The route of metrics."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import TypeAdapter

from optiinfra.api.common import Moment, now
from optiinfra.api.telemetry import MetricPoint, MetricType
from optiinfra.kit.late_bodies import LateBodyRoute
from optiinfra.kit.shared_runs import SharedRuns
from optiinfra.orchestrator.access import OwnCustomer
from optiinfra.orchestrator.platform import CurrentPlatform
from optiinfra.orchestrator.telemetry import service

router = APIRouter(route_class=LateBodyRoute)

_POINTS = TypeAdapter(list[MetricPoint])
_reads = SharedRuns[bytes]()

_DEFAULT_SPAN = timedelta(days=8)


@router.get("/customers/{customer_id}/metrics", response_model=list[MetricPoint])
async def metrics(
    customer_id: OwnCustomer,
    metric_type: MetricType,
    platform: CurrentPlatform,
    start_time: Moment | None = None,
    end_time: Moment | None = None,
    resource_id: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=20_000)] = 10_000,
) -> Response:
    """One metric over time, oldest first; by default of the last eight days."""

    async def read() -> bytes:
        end = end_time or now()
        start = start_time or end - _DEFAULT_SPAN
        points = await service.series(platform, customer_id, metric_type, start, end, resource_id, limit)
        return _POINTS.dump_json(points)

    # With the platform's store, because tests run several platforms in one process.
    asked = platform.telemetry, customer_id, metric_type, start_time, end_time, resource_id, limit
    return Response(await _reads.run(asked, read), media_type="application/json")
