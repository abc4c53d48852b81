"""The part of a fake orchestrator that knows a customer's users, credentials and audit log."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from pydantic_core import to_json

from optiinfra.api.audit import AuditEntry
from optiinfra.api.credentials import ApiKey
from optiinfra.api.users import Joined, User

NOW = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)

INVITED = "<b>lee</b>@acme.example"
INVITATION_TOKEN = "invite_token-of-the-unit-tests"
WEAK_PASSWORD = "password1234"


def problem(status: int, kind: str, detail: str) -> httpx.Response:
    """Problem details as the orchestrator sends them."""
    body = {"type": f"urn:optiinfra:problem:{kind}", "title": "t", "status": status, "detail": detail, "trace_id": "t"}
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json"})


class Administration:
    """Two users, an API key, and an audit log without entries."""

    def __init__(self) -> None:
        self.users = [
            User(user_id="user_1", email="ops@acme.example", role="owner", status="active", created_at=NOW),
            User(
                user_id="user_2",
                email=INVITED,
                role="viewer",
                status="invited",
                created_at=NOW,
                expires_at=NOW + timedelta(days=7),
            ),
        ]
        self.api_keys = [
            ApiKey(
                key_id="key_1",
                name="<i>nightly report</i>",
                scope="read",
                created_at=NOW,
                expires_at=NOW + timedelta(days=90),
                last_used_at=None,
            )
        ]
        self.audit_entries: list[AuditEntry] = []
        self.accepted: list[str] = []

    def answer(self, request: httpx.Request, customer: str, role: str) -> httpx.Response | None:
        """The answer to a request of a user with this role; None if it is about something else."""
        path = request.url.path
        if path == f"{customer}/audit-log":
            return self._audit_log(request.url.params)
        owners: dict[str, Any] = {f"{customer}/users": self.users, f"{customer}/api-keys": self.api_keys}
        if path not in owners:
            return None
        if role != "owner":
            return problem(403, "forbidden", f"this needs the role owner; yours is {role}")
        return httpx.Response(200, content=to_json(owners[path]))

    def accept(self, body: dict[str, Any]) -> httpx.Response:
        """The answer to somebody who accepts an invitation."""
        if body["token"] != INVITATION_TOKEN:
            return problem(401, "invitation_refused", "this invitation is unknown, used, replaced or expired")
        if body["password"] == WEAK_PASSWORD:
            return problem(422, "weak_password", "the password is too common: choose another one")
        self.accepted.append(body["password"])
        joined = Joined(customer_id="cust_1", user_id="user_2", email=INVITED, role="viewer")
        return httpx.Response(201, content=to_json(joined))

    def _audit_log(self, query: httpx.QueryParams) -> httpx.Response:
        below = [entry for entry in reversed(self.audit_entries) if entry.seq < int(query["before"])]
        return httpx.Response(200, content=to_json(below[: int(query["limit"])]))


def audit_entry(seq: int, **changed: Any) -> AuditEntry:
    """An entry of the audit log: the owner has changed preferences."""
    entry = {
        "seq": seq,
        "at": NOW,
        "actor_kind": "user",
        "actor": "user_1",
        "action": "PATCH /customers/{customer_id}/preferences",
        "target": {"customer_id": "cust_1"},
        "status": 200,
        "address": "203.0.113.7",
        "trace_id": f"trace{seq}",
    }
    return AuditEntry.model_validate(entry | changed)
