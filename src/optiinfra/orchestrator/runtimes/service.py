"""Runtimes on customers' sides: which have connected."""

import structlog
from sqlalchemy import bindparam, select

from optiinfra.api.runtimes import Connected
from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.errors import NotFound
from optiinfra.orchestrator.idempotency import KeyedRequest, remember, replay
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.reads import Query

_RUNTIME = Query(
    select(models.Runtime.id).where(
        models.Runtime.id == bindparam("runtime_id"), models.Runtime.token_id == bindparam("token_id")
    )
)

log = structlog.get_logger(__name__)


async def require_runtime(platform: Platform, token_id: str, runtime_id: str) -> None:
    """Raise NotFound unless the runtime connected with this token.

    A runtime's token never changes, so that one that was found is found for as long as the token is valid.
    """
    connection = token_id, runtime_id
    if connection not in platform.known_runtimes:
        if not await platform.database.read(_RUNTIME, runtime_id=runtime_id, token_id=token_id):
            raise NotFound("runtime")
        platform.known_runtimes[connection] = None


async def connect(
    platform: Platform, customer_id: str, token_id: str, hostname: str, version: str, keyed: KeyedRequest | None = None
) -> Connected:
    """Register a connecting runtime; pending commands of its predecessor will be delivered to it."""
    runtime_id = new_id("runtime")
    runtime = models.Runtime(
        id=runtime_id, customer_id=customer_id, token_id=token_id, hostname=hostname, version=version
    )
    connected = Connected(runtime_id=runtime_id)
    async with platform.database.transaction() as session:
        await replay(session, keyed)
        session.add(runtime)
        await remember(session, keyed, connected)
    log.info("runtime connected", customer_id=customer_id, runtime_id=runtime_id, hostname=hostname)
    return connected


async def describe_last_contact(platform: Platform, customer_id: str) -> str:
    """When a runtime of the customer was last heard of, for an error message."""
    query = select(models.Runtime).where(models.Runtime.customer_id == customer_id)
    async with platform.database.transaction() as session:
        latest = await session.scalar(query.order_by(models.Runtime.last_seen_at.desc()).limit(1))
    return f"last heard of at {latest.last_seen_at:%H:%M:%S} UTC" if latest else "no runtime has ever connected"
