"""Users who join a customer by invitation."""

import uuid
from typing import Any

import httpx

from tests.helpers.accounts import PASSWORD, Account
from tests.helpers.callers import call


def invited(http: httpx.Client, owner: Account, role: str, email: str | None = None) -> dict[str, Any]:
    """A new invitation of the owner's customer."""
    body = {"email": email or f"{role}-{uuid.uuid4().hex}@example.com", "role": role}
    token = owner.sign_in(http)["access_token"]
    invitation: dict[str, Any] = call(http, "POST", f"/customers/{owner.customer_id}/users", token, body)
    return invitation


def joined(http: httpx.Client, owner: Account, role: str) -> Account:
    """A new user of the owner's customer."""
    invitation = invited(http, owner, role)
    body = {"token": invitation["invitation_token"], "password": PASSWORD}
    user = call(http, "POST", "/auth/accept-invitation", body=body)
    return Account(owner.customer_id, user["user_id"], user["email"])
