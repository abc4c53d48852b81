"""API keys, with which a customer's programs call the API as a viewer or an approver, never as an owner."""

from datetime import timedelta

from optiinfra.api.common import now
from optiinfra.api.credentials import ApiKey, IssuedApiKey, NewApiKey
from optiinfra.kit.auth import Principal
from optiinfra.kit.ids import new_id, new_secret, secret_hash
from optiinfra.orchestrator.credentials.stored import StoredCredentials
from optiinfra.orchestrator.idempotency import KeyedRequest, remember_issued, replay
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models

PREFIX = "apikey"

_KEYS = StoredCredentials(models.ApiKey)
_ROLES = {"read": "viewer", "approve": "approver"}


async def issue(platform: Platform, customer_id: str, body: NewApiKey, keyed: KeyedRequest | None) -> IssuedApiKey:
    """A new key."""
    key, key_id = new_secret(PREFIX), new_id("key")
    expires_at = now() + timedelta(days=body.expires_in_days)
    async with platform.database.transaction() as session:
        await replay(session, keyed)
        session.add(
            models.ApiKey(
                id=key_id,
                customer_id=customer_id,
                name=body.name,
                scope=body.scope,
                token_hash=secret_hash(key),
                expires_at=expires_at,
            )
        )
        await remember_issued(session, keyed, key_id=key_id)
    return IssuedApiKey(api_key=key, key_id=key_id, name=body.name, scope=body.scope, expires_at=expires_at)


async def authenticate(platform: Platform, key: str) -> Principal | None:
    """The program that a key belongs to; None for one that is unknown, deleted or expired."""
    row = await _KEYS.authenticate(platform, key)
    return Principal("api_key", row.id, row.customer_id, _ROLES[row.scope]) if row else None


async def listed(platform: Platform, customer_id: str, limit: int) -> list[ApiKey]:
    """The customer's keys that can be used, newest first."""
    return [
        ApiKey(
            key_id=row.id,
            name=row.name,
            scope=row.scope,
            created_at=row.created_at,
            expires_at=row.expires_at,
            last_used_at=row.last_used_at,
        )
        for row in await _KEYS.listed(platform, customer_id, limit)
    ]


async def revoke(platform: Platform, customer_id: str, key_id: str) -> None:
    """End a key. Raises NotFound unless the customer has it."""
    async with platform.database.transaction() as session:
        await _KEYS.revoke(session, customer_id, key_id)
