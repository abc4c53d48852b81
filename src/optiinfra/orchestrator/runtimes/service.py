"""Runtimes on customers' sides: which have connected."""

import structlog
from sqlalchemy import select

from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models

log = structlog.get_logger(__name__)


async def connect(platform: Platform, customer_id: str, hostname: str, version: str) -> str:
    """Register a connecting runtime; pending commands of its predecessor will be delivered to it. Returns its id."""
    runtime_id = new_id("runtime")
    async with platform.database.transaction() as session:
        session.add(models.Runtime(id=runtime_id, customer_id=customer_id, hostname=hostname, version=version))
    log.info("runtime connected", customer_id=customer_id, runtime_id=runtime_id, hostname=hostname)
    return runtime_id


async def describe_last_contact(platform: Platform, customer_id: str) -> str:
    """When a runtime of the customer was last heard of, for an error message."""
    query = select(models.Runtime).where(models.Runtime.customer_id == customer_id)
    async with platform.database.transaction() as session:
        latest = await session.scalar(query.order_by(models.Runtime.last_seen_at.desc()).limit(1))
    return f"last heard of at {latest.last_seen_at:%H:%M:%S} UTC" if latest else "no runtime has ever connected"
