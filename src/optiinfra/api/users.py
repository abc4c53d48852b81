"""The users of a customer, and invitations to become one."""

from typing import Literal

from pydantic import EmailStr

from optiinfra.api.accounts import Password, Role
from optiinfra.api.common import Body, Moment, Secret, Wire


class Invite(Body):
    """An address to invite, and the role that its owner gets."""

    email: EmailStr
    role: Role


class Invited(Wire):
    """An invitation. The token is shown only once; it can be used once, until it expires."""

    user_id: str
    email: str
    role: Role
    invitation_token: str
    expires_at: Moment


class AcceptInvitation(Body):
    """The token of an invitation, and the password of the new user."""

    token: Secret
    password: Password


class Joined(Wire):
    """The user who accepted an invitation, and can sign in now."""

    customer_id: str
    user_id: str
    email: str
    role: Role


class User(Wire):
    """A user; an invited one becomes active by accepting the invitation before it expires."""

    user_id: str
    email: str
    role: Role
    status: Literal["active", "invited"]
    created_at: Moment
    expires_at: Moment | None = None
