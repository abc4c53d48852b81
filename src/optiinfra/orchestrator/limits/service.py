"""Limits on what callers may do: by address before they have signed in, by customer afterwards."""

import hashlib
import hmac
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from ipaddress import ip_address, ip_network
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from optiinfra.api.common import PORTAL_CLIENT_HEADER, PORTAL_SECRET_HEADER
from optiinfra.kit.auth import Principal, bearer, current_principal
from optiinfra.orchestrator.errors import TooManyRequests, Unauthenticated
from optiinfra.orchestrator.platform import Platform, of_connection

_SAFE = ("GET", "HEAD", "OPTIONS")


async def client_address(connection: HTTPConnection) -> str:
    """The address of the caller; of the portal's user if the portal calls.

    uvicorn has replaced a trusted proxy's address by the one that it forwards.
    """
    forwarded, secret = connection.headers.get(PORTAL_CLIENT_HEADER), connection.headers.get(PORTAL_SECRET_HEADER, "")
    if forwarded and hmac.compare_digest(secret.encode(), of_connection(connection).settings.portal_secret.encode()):
        return forwarded
    return connection.client.host if connection.client else "unknown"


def _network(address: str) -> str:
    """What limits are counted for: one host may use all addresses of an IPv6 network of 64 bits."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address


ClientAddress = Annotated[str, Depends(client_address)]


async def admit_sign_up(platform: Platform, address: str) -> None:
    """Raises TooManyRequests when the address has signed up too often."""
    _refuse_until(
        await platform.rate_limits.hit(platform.settings.rate_limit_sign_up, "sign-up", _digest(_network(address)))
    )


@asynccontextmanager
async def place_of_caller(connection: HTTPConnection, public: Collection[str]) -> AsyncIterator[None]:
    """A place among the requests with the same credential, or among those from the same network to a `public` path.

    The credential is not checked yet: a customer's requests can be delayed only by those who know it.
    """
    token, path = bearer(connection), connection.scope["path"]
    parts = (token,) if token and path not in public else (_network(await client_address(connection)), path)
    async with of_connection(connection).requests.place(_digest(*parts)):
        yield


def place_of_customer(connection: HTTPConnection) -> AbstractAsyncContextManager[None]:
    """A place among the reads, or the changes, of the customer's users and API keys; other callers need none.

    Changes of a customer lock its row, so each would hold a connection while it waits for the others.
    """
    principal: Principal | None = connection.scope.get("state", {}).get("principal")
    if principal is None or principal.kind not in ("user", "api_key"):
        return nullcontext()
    platform = of_connection(connection)
    safe = connection.scope["type"] == "websocket" or connection.scope["method"] in _SAFE
    return (platform.reads if safe else platform.changes).place(principal.customer_id or "")


@asynccontextmanager
async def limited_sign_in(platform: Platform, account: str, address: str) -> AsyncIterator[None]:
    """Count an attempt to sign in, and its failure when the block raises Unauthenticated.

    Raises TooManyRequests when there were too many attempts from this address for this account, or while failures have
    locked the two. Other addresses are not affected, so that nobody can lock an account's owner out.
    """
    key = _digest(account.strip().lower(), _network(address))
    _refuse_until(await platform.lockouts.seconds_left(key))
    _refuse_until(await platform.rate_limits.hit(platform.settings.rate_limit_sign_in, "sign-in", key))
    try:
        yield
    except Unauthenticated:
        await platform.lockouts.fail(key)
        raise
    await platform.lockouts.succeed(key)


async def admit_samples(platform: Platform, customer_id: str, count: int) -> None:
    """Raises TooManyRequests when the customer's runtimes have sent too many samples."""
    limit = platform.settings.rate_limit_samples
    _refuse_until(await platform.rate_limits.hit(limit, "samples", _digest(customer_id), cost=max(1, count)))


async def admit_refusal(platform: Platform, address: str, customer_id: str) -> bool:
    """Whether a refused request from this address is recorded: millions must not fill the audit log.

    Counted for each customer that it concerns, so that other requests cannot hide attempts to sign in as theirs.
    """
    limit = platform.settings.rate_limit_audited_refusals
    return await platform.rate_limits.hit(limit, "refusals", _digest(_network(address), customer_id)) is None


async def seconds_to_wait(connection: HTTPConnection) -> int | None:
    """How long the customer of an authenticated caller has to wait before the next request; None if not at all."""
    principal, platform = current_principal(connection), of_connection(connection)
    if principal.kind not in ("user", "api_key") or principal.customer_id is None:
        return None
    limit = platform.settings.rate_limit_api
    return await platform.rate_limits.hit_frequent(limit, "api", _digest(principal.customer_id))


def _refuse_until(seconds: int | None) -> None:
    if seconds is not None:
        raise TooManyRequests(seconds)


def _digest(*parts: str) -> str:
    """A key without personal data; parts with a separator in them cannot be mistaken for others."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:32]
