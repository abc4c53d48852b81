"""Live events for the browser: the orchestrator's WebSocket relayed as server-sent events."""

import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import StreamingResponse

from optiinfra.api import calls
from optiinfra.kit.problems import Problem
from optiinfra.portal.platform import Platform
from optiinfra.portal.sessions import Access

router = APIRouter()

_IDLE_SECONDS = 15.0
_RECONNECT_MILLISECONDS = 2000


@router.get("/events")
async def events(
    request: Request,
    after: Annotated[int, Query(ge=0)],
    last_event_id: Annotated[int | None, Header(ge=0)] = None,
) -> StreamingResponse:
    """The customer's events after number `after` (from the page), or after the last one that the browser received."""
    platform: Platform = request.app.state.platform
    access: Access = request.state.access
    await platform.send(calls.identity(), access.token)  # 401 for a session that has ended: a stream could not say so
    stream = relay(platform, access, after if last_event_id is None else last_event_id)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"cache-control": "no-store"})


async def relay(platform: Platform, access: Access, after: int) -> AsyncIterator[str]:
    """Ends with the session, and when the access token expires; the browser then reconnects with a renewed one."""
    yield f"retry: {_RECONNECT_MILLISECONDS}\n\n"
    try:
        async for event in platform.events(access.token, access.identity.customer_id, after, _IDLE_SECONDS):
            if event is None:
                yield ": keep-alive\n\n"
            else:
                yield f"id: {event.seq}\nevent: change\ndata: {event.model_dump_json()}\n\n"
            if time.time() >= access.expires_at:
                return
    except Problem as problem:
        yield f": {problem.detail}\n\n"
