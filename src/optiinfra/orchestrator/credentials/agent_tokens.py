"""Agent tokens, with which a customer's runtimes authenticate."""

import json
import shlex
from datetime import timedelta

from optiinfra.api.common import now
from optiinfra.api.credentials import AgentToken, InstallCommand
from optiinfra.kit.auth import Principal
from optiinfra.kit.ids import new_id, new_secret, secret_hash
from optiinfra.orchestrator.credentials.stored import StoredCredentials
from optiinfra.orchestrator.idempotency import KeyedRequest, remember_issued, replay
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import notify_after_commit

_TOKENS = StoredCredentials(models.AgentToken)


async def issue(platform: Platform, customer_id: str, keyed: KeyedRequest | None) -> InstallCommand:
    """A new token, and the command that starts the runtime with it."""
    token, token_id = new_secret("agtok"), new_id("token")
    expires_at = now() + timedelta(seconds=platform.settings.agent_token_seconds)
    async with platform.database.transaction() as session:
        await replay(session, keyed)
        session.add(
            models.AgentToken(
                id=token_id, customer_id=customer_id, token_hash=secret_hash(token), expires_at=expires_at
            )
        )
        await remember_issued(session, keyed, token_id=token_id)
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
    return InstallCommand(install_command=command, agent_token=token, token_id=token_id, expires_at=expires_at)


async def authenticate(platform: Platform, token: str) -> Principal | None:
    """The runtime that a token belongs to; None for one that is unknown, deleted or expired."""
    row = await _TOKENS.authenticate(platform, token)
    return Principal("runtime", row.id, row.customer_id) if row else None


async def is_active(platform: Platform, token_id: str) -> bool:
    """Whether the token has been neither deleted nor expired since a request was authenticated with it."""
    return await _TOKENS.is_active(platform, token_id)


async def listed(platform: Platform, customer_id: str, limit: int) -> list[AgentToken]:
    """The customer's tokens that can be used, newest first."""
    return [
        AgentToken(token_id=row.id, created_at=row.created_at, expires_at=row.expires_at, last_used_at=row.last_used_at)
        for row in await _TOKENS.listed(platform, customer_id, limit)
    ]


async def revoke(platform: Platform, customer_id: str, token_id: str) -> None:
    """End a token; a long poll that waits with it is answered. Raises NotFound unless the customer has it."""
    async with platform.database.transaction() as session:
        await _TOKENS.revoke(session, customer_id, token_id)
        notify_after_commit(session, channel(customer_id))


def channel(customer_id: str) -> str:
    """The channel that is notified when a token of the customer ends, or a command for its runtimes is issued."""
    return f"runtimes:{customer_id}"
