"""The address of somebody who has just joined, for the sign-in form. A cookie carries it: a URL would be logged."""

from starlette.requests import HTTPConnection
from starlette.responses import Response

from optiinfra.portal.key_ring import KeyRing

JOINED_PURPOSE = "optiinfra portal joined address v1"
"""Of the keys that encrypt the cookie."""

_COOKIE, _PATH, _SECONDS = "optiinfra_joined", "/login", 600


class JoinedAddresses:
    """Remembers an address in a browser until its sign-in form was shown, for ten minutes at most."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    def remember(self, response: Response, connection: HTTPConnection, email: str) -> None:
        """Set the cookie."""
        response.set_cookie(
            _COOKIE,
            self._keys.seal(email),
            max_age=_SECONDS,
            path=_PATH,
            httponly=True,
            samesite="strict",
            secure=connection.url.scheme == "https",
        )

    def recall(self, connection: HTTPConnection) -> str | None:
        """The remembered address, if there is one."""
        cookie = connection.cookies.get(_COOKIE)
        return self._keys.unseal(cookie) if cookie else None

    def forget(self, response: Response) -> None:
        """Delete the cookie."""
        response.delete_cookie(_COOKIE, path=_PATH)
