"""Records requests in the audit log before they are answered: changes, refusals, and what concerns credentials."""

import asyncio
import re
from collections.abc import Callable
from typing import Annotated

import structlog
from fastapi import Depends
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from optiinfra.api.common import now
from optiinfra.kit.auth import Principal
from optiinfra.kit.logging import trace_id
from optiinfra.orchestrator.audit import chain as chains
from optiinfra.orchestrator.audit import service
from optiinfra.orchestrator.audit.chain import PLATFORM, Entry
from optiinfra.orchestrator.background import start_in_background
from optiinfra.orchestrator.limits.service import admit_refusal, client_address
from optiinfra.orchestrator.platform import of_connection
from optiinfra.stores.errors import StoreUnavailable

log = structlog.get_logger(__name__)

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSED = frozenset({401, 403, 404, 429})
_ROUTINE = re.compile(
    r"POST /agent-runtime/[^/]+/telemetry|PUT /agent-runtime/[^/]+/inventory"
    r"|POST /agent-runtime/[^/]+/commands/[^/]+/result|POST /orchestrator/agents/[^/]+/heartbeat"
)
"""Reports of machines, several each second: no decision of anybody's."""
_ID = re.compile(r"\b[a-z]+_[0-9a-f]{12,}")
_CHARACTERS, _ACCEPTED_CODE = 200, 4000


async def _attribution(connection: HTTPConnection) -> Callable[[Principal], None]:
    def attribute(principal: Principal) -> None:
        connection.state.attributed = principal

    return attribute


Attribute = Annotated[Callable[[Principal], None], Depends(_attribution)]
"""Says on whose behalf a request without a credential, such as a sign-in, is made."""


class AuditMiddleware:
    """The response waits until its entry is written: without an entry there is no answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        accepted = started = False

        async def send_recorded(message: Message) -> None:
            nonlocal accepted, started
            if message["type"] == "http.response.start":
                started = True
                await _record(scope, message["status"])
            elif message["type"] == "websocket.accept":
                accepted = True
            elif message["type"] == "websocket.close" and not accepted:
                await _record(scope, message.get("code", 0) - _ACCEPTED_CODE)
            await send(message)

        try:
            await self.app(scope, receive, send_recorded)
        except (Exception, asyncio.CancelledError) as error:
            if scope["type"] == "http" and not started:
                await _record_failure(scope, error)
            raise


async def _record_failure(scope: Scope, error: BaseException) -> None:
    """Record a request that has no answer yet, because it failed or took too long: it may have changed something."""
    if isinstance(error, asyncio.CancelledError):
        start_in_background(_record(scope, 503))  # the answer is sent already
        return
    try:
        await _record(scope, 503 if isinstance(error, StoreUnavailable) else 500)
    except StoreUnavailable as outage:
        log.warning("audit entry lost", method=scope["method"], error=str(outage))


async def _record(scope: Scope, status: int) -> None:
    connection, method = HTTPConnection(scope), scope.get("method", "WS")
    principal: Principal | None = scope.get("state", {}).get("principal") or scope.get("state", {}).get("attributed")
    own = (principal.customer_id if principal else None) or PLATFORM
    target = {name: str(value)[:_CHARACTERS] for name, value in scope.get("path_params", {}).items()}
    routine = _ROUTINE.fullmatch(f"{method} {scope['path']}") is not None
    # An id that nothing has looks like another customer's.
    foreign = bool(target) and target.get("customer_id") != own and not routine
    refused = status in _REFUSED and (status != 404 or foreign)
    changed = method not in (*_SAFE, "WS") and not 300 <= status < 500 and not routine
    if not refused and not changed:
        return
    platform, address = of_connection(connection), await client_address(connection)
    if refused and not await admit_refusal(platform, address, own):
        return
    key = platform.settings.audit_key
    if own != PLATFORM and target.get("customer_id", own) != own:
        target["customer_id"] = chains.pseudonym(key, target["customer_id"])
    route = getattr(scope.get("route"), "path", None) or _ID.sub("*", scope["path"])
    entry = Entry(
        at=now(),
        actor_kind=principal.kind if principal else "anonymous",
        actor=principal.subject if principal else "",
        action=f"{method} {route}"[:_CHARACTERS].encode("utf-8", "replace").decode(),
        target=target,
        status=status,
        address=address,
        trace_id=trace_id(),
    )
    await service.append(platform, own, entry if own != PLATFORM else chains.anonymous(key, entry))
