"""Sign-up and sign-in."""

from typing import Annotated, Literal

from pydantic import EmailStr, StringConstraints

from optiinfra.api.common import Body, Secret, Text, Wire

Role = Literal["owner", "approver", "viewer"]
Password = Annotated[str, StringConstraints(min_length=12, max_length=128)]


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
    password: Secret


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
