"""Events to the browser as they happen: the orchestrator's WebSocket carried on as server-sent events."""

import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import StreamingResponse

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
    """The customer's events after number `after`, which the page carries, or after the last one a browser saw."""
    platform: Platform = request.app.state.platform
    stream = _stream(platform, request.state.access, after if last_event_id is None else last_event_id)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"cache-control": "no-store"})


async def _stream(platform: Platform, access: Access, after: int) -> AsyncIterator[str]:
    """Ends with the access token, upon which the browser comes back by itself with a renewed one."""
    yield f"retry: {_RECONNECT_MILLISECONDS}\n\n"
    try:
        async for event in platform.events(access.token, access.identity.customer_id, after, _IDLE_SECONDS):
            if event is None:
                yield ": nothing new\n\n"
            else:
                yield f"id: {event.seq}\nevent: change\ndata: {event.model_dump_json()}\n\n"
            if time.time() >= access.expires_at:
                return
    except Problem as problem:
        yield f": {problem.detail}\n\n"
