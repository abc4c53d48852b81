"""Events by page, and live over a WebSocket."""

import contextlib
import time
from functools import partial
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, WebSocket

from optiinfra.api.events import SUBPROTOCOL, Event, LatestEvent
from optiinfra.kit.auth import Principal, current_principal
from optiinfra.kit.late_bodies import LateBodyRoute
from optiinfra.kit.tasks import counted, first_completed
from optiinfra.orchestrator.access import OwnCustomer
from optiinfra.orchestrator.accounts import service as accounts
from optiinfra.orchestrator.accounts import sessions
from optiinfra.orchestrator.events import service
from optiinfra.orchestrator.platform import CurrentPlatform, Platform, of_connection

router = APIRouter(route_class=LateBodyRoute)

_IDLE_SECONDS = 10.0
_PAGE = 100
_MAX_SEQ = 2**62

log = structlog.get_logger(__name__)


@router.get("/customers/{customer_id}/events")
async def events(
    customer_id: OwnCustomer,
    platform: CurrentPlatform,
    after: Annotated[int, Query(ge=0, le=_MAX_SEQ)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[Event]:
    """Events numbered above `after`, in order."""
    return await service.after(platform.database, customer_id, after, limit)


@router.get("/customers/{customer_id}/events/latest")
async def latest(customer_id: OwnCustomer, platform: CurrentPlatform) -> LatestEvent:
    """The number of the customer's latest event."""
    return LatestEvent(seq=await service.latest(platform.database, customer_id))


@router.websocket("/ws/customers/{customer_id}")
async def live(websocket: WebSocket, customer_id: str, after: Annotated[int, Query(ge=0, le=_MAX_SEQ)] = 0) -> None:
    """Send each event after number `after` once, in order, as it happens, until the session or the token ends.

    Refused while the customer has as many streams as allowed.
    """
    principal = current_principal(websocket)
    if principal.kind != "user" or principal.customer_id != customer_id:
        await websocket.close(4404, "no such customer")
        return
    platform = of_connection(websocket)
    if platform.streams[customer_id] >= (most := platform.settings.quota_streams):
        await websocket.close(4429, f"at most {most} event streams of a customer may be open")
        return
    sending = _send_until_signed_out(websocket, platform, principal, after)
    try:
        with counted(platform.streams, customer_id):
            await websocket.accept(subprotocol=SUBPROTOCOL)
            await first_completed(_wait_until_closed(websocket), sending)
    except Exception as error:
        log.warning("event stream failed", customer_id=customer_id, error=repr(error))
        with contextlib.suppress(RuntimeError):  # the connection may be closed: that may be the error
            await websocket.close(1011, "the stream failed: connect again after the last number")


async def _wait_until_closed(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass  # messages from the customer are ignored


# Each event wakes all streams of its customer at once: they share what they read.


async def _is_session_active(platform: Platform, user: Principal) -> bool:
    return await platform.session_checks.run(user.session_id, partial(accounts.is_session_active, platform, user))


async def _page(platform: Platform, customer_id: str, after: int) -> list[tuple[int, str]]:
    """Number and JSON of the next events."""
    found = await service.after(platform.database, customer_id, after, _PAGE)
    return [(event.seq, event.model_dump_json()) for event in found]


async def _send_until_signed_out(websocket: WebSocket, platform: Platform, user: Principal, seq: int) -> None:
    customer_id, session_id = user.customer_id or "", user.session_id or ""
    channels = service.channel(customer_id), sessions.channel(session_id)
    async with platform.wake.subscribe(*channels) as wait:
        while (left := user.expires_at - time.time()) > 0 and await _is_session_active(platform, user):
            page = await platform.event_pages.run((customer_id, seq), partial(_page, platform, customer_id, seq))
            for number, text in page:
                await websocket.send_text(text)
                seq = number
            if len(page) < _PAGE:
                await wait(min(_IDLE_SECONDS, left))
    await websocket.close(4401, "the session has ended, or its token has expired")
