"""Events to the browser as they happen: the orchestrator's WebSocket carried on as server-sent events."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Header, Request
from starlette.responses import StreamingResponse

from optiinfra.kit.problems import Problem
from optiinfra.portal.platform import Platform
from optiinfra.portal.sessions import Access

router = APIRouter()

_IDLE_SECONDS = 15.0
_RECONNECT_MILLISECONDS = 2000
_CLOCK_TOLERANCE = timedelta(seconds=2)


@router.get("/events")
async def events(
    request: Request, since: datetime | None = None, last_event_id: int | None = Header(default=None)
) -> StreamingResponse:
    """The customer's events after the last one seen, or, at first, those since the page was made."""
    platform: Platform = request.app.state.platform
    access: Access = request.state.access
    earliest = None if last_event_id is not None else (since or datetime.now(UTC)) - _CLOCK_TOLERANCE
    stream = _stream(platform, access, last_event_id or 0, earliest)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"cache-control": "no-store"})


async def _stream(platform: Platform, access: Access, after: int, earliest: datetime | None) -> AsyncIterator[str]:
    """Ends with the access token, upon which the browser comes back by itself with a renewed one."""
    yield f"retry: {_RECONNECT_MILLISECONDS}\n\n"
    try:
        async for event in platform.events(access.token, access.identity.customer_id, after, _IDLE_SECONDS):
            if event is None:
                yield ": nothing new\n\n"
            elif earliest is None or event.created_at >= earliest:
                yield f"id: {event.seq}\nevent: change\ndata: {event.model_dump_json()}\n\n"
            if time.time() >= access.expires_at:
                return
    except Problem as problem:
        yield f": {problem.detail}\n\n"
