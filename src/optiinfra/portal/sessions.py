"""Sessions: tokens in an encrypted cookie, or a bearer token; access tokens are renewed before they expire."""

import asyncio
import time
from dataclasses import dataclass

from pydantic import ValidationError
from starlette.requests import HTTPConnection

from optiinfra.api import calls
from optiinfra.api.accounts import Identity, Tokens
from optiinfra.api.common import Wire
from optiinfra.kit.auth import Principal, bearer
from optiinfra.kit.problems import Problem
from optiinfra.portal.forms import entered
from optiinfra.portal.key_ring import KeyRing
from optiinfra.portal.platform import Platform

COOKIE = "optiinfra_session"

PURPOSE = "optiinfra portal session v2"
"""Of the keys that encrypt the cookie."""

_RENEW_BEFORE_SECONDS = 30.0
_KEEP_RENEWAL_SECONDS = 60.0


class Session(Wire):
    """A signed-in browser; `expires_at` (seconds since the epoch) is the access token's end."""

    access_token: str
    refresh_token: str
    expires_at: float
    identity: Identity


@dataclass(frozen=True, slots=True)
class Access:
    """What a handler needs to act for the user; `expires_at` is infinite for a bearer token."""

    token: str
    identity: Identity
    expires_at: float


class Sessions:
    """Seals (encrypts), unseals and renews sessions.

    A refresh token can be used once; reuse ends the session. A page sends several requests with the same cookie, so a
    renewal is made once and its result kept for the requests that still carry the old cookie.
    """

    def __init__(self, keys: KeyRing, platform: Platform) -> None:
        self._keys, self._platform = keys, platform
        self._renewals: dict[str, tuple[float, asyncio.Task[Session]]] = {}

    async def sign_in(self, username: str, password: str) -> Session:
        """A new session; `Problem` 401 or 422 if username or password is wrong, 429 after too many attempts."""
        with entered():
            call = calls.login(username, password)
        tokens = await self._platform.send(call)
        return _session(tokens, await self._platform.send(calls.identity(), tokens.access_token))

    def seal(self, session: Session) -> str:
        """The session as the value of a cookie, encrypted and authenticated."""
        return self._keys.seal(session.model_dump_json())

    def unseal(self, cookie: str | None) -> Session | None:
        """The session in a cookie; None if there is no cookie or it is invalid."""
        plain = self._keys.unseal(cookie) if cookie else None
        if plain is None:
            return None
        try:
            return Session.model_validate_json(plain)
        except ValidationError:  # of another version of the portal
            return None

    async def authenticate(self, connection: HTTPConnection) -> Principal | None:
        """The caller, for the middleware. Puts an `Access`, and a renewed session, into the request's state."""
        if token := bearer(connection):
            try:
                identity = await self._platform.send(calls.identity(), token)
            except Problem as problem:
                if problem.status in (401, 403):
                    return None
                raise
            connection.state.access = Access(token, identity, float("inf"))
            return _principal(identity)
        session = self.unseal(connection.cookies.get(COOKIE))
        if session is None:
            return None
        try:
            current = await self._renew_if_due(session)
        except Problem as problem:
            if problem.status == 401:
                return None
            current = session  # the page itself shows that the platform is unavailable
        if current is not session:
            connection.state.renewed_session = current
        connection.state.access = Access(current.access_token, current.identity, current.expires_at)
        return _principal(current.identity)

    async def _renew_if_due(self, session: Session) -> Session:
        if session.expires_at - time.time() > _RENEW_BEFORE_SECONDS:
            return session
        present = time.monotonic()
        self._renewals = {
            key: renewal for key, renewal in self._renewals.items() if present - renewal[0] < _KEEP_RENEWAL_SECONDS
        }
        key = session.refresh_token
        if key not in self._renewals:
            self._renewals[key] = (present, asyncio.create_task(self._renew(session)))
        try:
            return await asyncio.shield(self._renewals[key][1])
        except Problem:
            self._renewals.pop(key, None)
            raise

    async def _renew(self, session: Session) -> Session:
        return _session(await self._platform.send(calls.refresh(session.refresh_token)), session.identity)


def _session(tokens: Tokens, identity: Identity) -> Session:
    return Session(
        access_token=tokens.access_token,
        refresh_token=tokens.refresh_token,
        expires_at=time.time() + tokens.expires_in,
        identity=identity,
    )


def _principal(identity: Identity) -> Principal:
    return Principal("user", identity.email, identity.customer_id, identity.role)
