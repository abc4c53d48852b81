"""The page of the audit log."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from optiinfra.api import calls
from optiinfra.api.audit import END, AuditEntry
from optiinfra.portal.dependencies import CurrentAccess, CurrentPlatform
from optiinfra.portal.platform import Platform
from optiinfra.portal.sessions import Access
from optiinfra.portal.views import humanize, page

router = APIRouter()

_SHOWN = 50
_ACTORS = {
    "admin": "Operator",
    "anonymous": "Not signed in",
    "api_key": "API key",
    "runtime": "Agent token",
    "user": "User",
}


@router.get("/audit")
async def audit_page(
    platform: CurrentPlatform, access: CurrentAccess, before: Annotated[int, Query(ge=0, le=END)] = END
) -> Response:
    """What happened, newest first: the entries numbered below `before`."""
    call = calls.audit_log(access.identity.customer_id, before, _SHOWN + 1)
    entries, names = await asyncio.gather(platform.send(call, access.token), _names(platform, access))
    shown = entries[:_SHOWN]
    return page(
        "audit.html",
        identity=access.identity,
        entries=shown,
        names=names,
        actors=_ACTORS,
        targets={entry.seq: _target(entry, access.identity.customer_id) for entry in shown},
        newest=before == END,
        older=shown[-1].seq if len(entries) > _SHOWN else None,
    )


async def _names(platform: Platform, access: Access) -> dict[str, str]:
    """What people call users and API keys, by id. Only owners may know."""
    if access.identity.role != "owner":
        return {}
    users, keys = await asyncio.gather(
        platform.send(calls.users(access.identity.customer_id), access.token),
        platform.send(calls.api_keys(access.identity.customer_id), access.token),
    )
    return {user.user_id: user.email for user in users} | {key.key_id: key.name for key in keys}


def _target(entry: AuditEntry, customer_id: str) -> dict[str, str]:
    """What the request was about, besides the customer, by kind."""
    return {humanize(name.removesuffix("_id")): value for name, value in entry.target.items() if value != customer_id}
