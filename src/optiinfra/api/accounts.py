"""Sign-up and sign-in."""

import unicodedata
from typing import Annotated, Literal

from pydantic import BeforeValidator, EmailStr, StringConstraints

from optiinfra.api.common import Body, Moment, Secret, Text, Wire

_NORMALIZED = 1_000


def _normalized(password: object) -> object:
    """NFC: keyboards and browsers encode one and the same character differently.

    A text that is refused as too long is left as it is: normalizing takes time that grows with its square.
    """
    if isinstance(password, str) and len(password) <= _NORMALIZED:
        return unicodedata.normalize("NFC", password)
    return password


Role = Literal["owner", "approver", "viewer"]
Password = Annotated[Secret, StringConstraints(min_length=12, max_length=128), BeforeValidator(_normalized)]
"""A new password."""
PresentedPassword = Annotated[Secret, BeforeValidator(_normalized)]
"""A password to be compared with the stored hash."""


class Signup(Body):
    """A company and its first user, who gets the role of owner."""

    email: EmailStr
    company_name: Text
    password: Password
    plan: Literal["free", "starter", "pro", "enterprise"] = "pro"


class SignedUp(Wire):
    """Response to a sign-up."""

    success: Literal[True] = True
    customer_id: str


class Login(Body):
    """Credentials: the username is the e-mail address."""

    username: Text
    password: PresentedPassword


class Refresh(Body):
    """A refresh token, which can be used once."""

    refresh_token: Secret


class Tokens(Wire):
    """Tokens of a session; the access token expires in `expires_in` seconds."""

    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  the OAuth 2 token type, not a secret
    expires_in: int


class Identity(Wire):
    """The user of a token."""

    customer_id: str
    email: str
    role: Role


class PasswordChange(Body):
    """The current password, and the one that replaces it."""

    current_password: PresentedPassword
    new_password: Password


class ActiveSession(Wire):
    """A session of a user. `refreshed_at` is when it last got new tokens; at `expires_at` it ends in any case."""

    session_id: str
    created_at: Moment
    refreshed_at: Moment
    expires_at: Moment
    current: bool
