"""Events by page, and live over a WebSocket."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect

from optiinfra.api.events import Event
from optiinfra.kit.auth import CurrentPrincipal, current_principal
from optiinfra.orchestrator.access import require_tenant
from optiinfra.orchestrator.events import service
from optiinfra.orchestrator.platform import CurrentPlatform, Platform, of_connection

router = APIRouter()

SUBPROTOCOL = "optiinfra.v1"
_IDLE_SECONDS = 10.0


@router.get("/customers/{customer_id}/events")
async def events(
    customer_id: str,
    principal: CurrentPrincipal,
    platform: CurrentPlatform,
    after: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[Event]:
    """Events numbered above `after`, in order."""
    require_tenant(principal, customer_id)
    return await service.after(platform.database, customer_id, after, limit)


@router.websocket("/ws/customers/{customer_id}")
async def live(websocket: WebSocket, customer_id: str, after: int = 0) -> None:
    """Send each event after number `after` once, in order, as it happens."""
    principal = current_principal(websocket)
    if principal.kind != "user" or principal.customer_id != customer_id:
        await websocket.close(4404, "no such customer")
        return
    await websocket.accept(subprotocol=SUBPROTOCOL)
    sending = asyncio.create_task(_send_forever(websocket, of_connection(websocket), customer_id, after))
    try:
        while True:
            await websocket.receive()
    except (WebSocketDisconnect, RuntimeError):  # Starlette's word for reading on after a disconnect
        sending.cancel()


async def _send_forever(websocket: WebSocket, platform: Platform, customer_id: str, seq: int) -> None:
    async with platform.wake.listening(service.channel(customer_id)) as wait:
        while True:
            for event in await service.after(platform.database, customer_id, seq, 100):
                await websocket.send_text(event.model_dump_json())
                seq = event.seq
            await wait(_IDLE_SECONDS)
