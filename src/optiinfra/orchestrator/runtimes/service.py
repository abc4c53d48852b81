"""Runtimes on customers' sides: their tokens, and which have connected."""

import json
import shlex

import structlog
from sqlalchemy import bindparam, select

from optiinfra.api.customers import InstallCommand
from optiinfra.kit.auth import Principal
from optiinfra.kit.ids import new_id, new_secret, secret_hash
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.reads import Query

_TOKEN = Query(
    select(models.AgentToken.id, models.AgentToken.customer_id).where(
        models.AgentToken.token_hash == bindparam("token_hash"), models.AgentToken.revoked_at.is_(None)
    )
)

log = structlog.get_logger(__name__)


async def issue_token(platform: Platform, customer_id: str) -> InstallCommand:
    """A new token for the customer's runtime; only its hash is stored."""
    token, token_id = new_secret("agtok"), new_id("token")
    async with platform.database.transaction() as session:
        session.add(models.AgentToken(id=token_id, customer_id=customer_id, token_hash=secret_hash(token)))
    enrolment = {
        "customer_id": customer_id,
        "agent_token": token,
        "gateway_url": "http://YOUR-INFERENCE-GATEWAY",
        "golden_prompts": "/PATH/TO/YOUR/GOLDEN-PROMPTS.yaml",
    }
    command = (
        f"(umask 077; mkdir -p enrolments; echo {shlex.quote(json.dumps(enrolment))} > enrolments/{customer_id}.json); "
        f"OPTIINFRA_ORCHESTRATOR_URL={platform.settings.orchestrator_url} "
        "OPTIINFRA_RUNTIME_ENROLMENTS=enrolments OPTIINFRA_STATE_DIR=. python -m optiinfra.runtime"
    )
    return InstallCommand(install_command=command, agent_token=token, token_id=token_id)


async def authenticate(platform: Platform, token: str) -> Principal | None:
    """The runtime that a token belongs to; None for an unknown or revoked one."""
    rows = await platform.database.read(_TOKEN, token_hash=secret_hash(token))
    return Principal("runtime", rows[0].id, rows[0].customer_id) if rows else None


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
