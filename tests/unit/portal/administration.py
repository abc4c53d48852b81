"""The part of a fake orchestrator that knows a customer's users, credentials and audit log."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from pydantic_core import to_json

from optiinfra.api.accounts import ActiveSession
from optiinfra.api.audit import AuditEntry
from optiinfra.api.credentials import AgentToken, ApiKey
from optiinfra.api.users import Joined, User

NOW = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
INVITED = "<b>lee</b>@acme.example"
INVITATION_TOKEN = "invite_token-of-the-unit-tests"
AGENT_TOKEN = "agtok_of-the-unit-tests"
API_KEY = "apikey_of-the-unit-tests"
WEAK_PASSWORD = "password1234"


def problem(status: int, kind: str, detail: str) -> httpx.Response:
    """Problem details as the orchestrator sends them."""
    body = {"type": f"urn:optiinfra:problem:{kind}", "title": "t", "status": status, "detail": detail, "trace_id": "t"}
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json"})


class Administration:
    """Two users, an API key, an agent token, two sessions, and an audit log without entries.

    `accepted` are the passwords of those who joined, `changes` the requests that changed something with their bodies.
    """

    def __init__(self, password: str) -> None:
        self.password = password
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
        self.agent_tokens = [
            AgentToken(token_id="token_1", created_at=NOW, expires_at=NOW + timedelta(days=365), last_used_at=NOW)
        ]
        self.sessions = [session("sess_1", current=True), session("sess_2", current=False)]
        self.audit_entries: list[AuditEntry] = []
        self.accepted: list[str] = []
        self.changes: list[tuple[str, Any]] = []
        self.keys: set[str] = set()

    def accept(self, body: dict[str, Any]) -> httpx.Response:
        """The answer to somebody who accepts an invitation."""
        if body["token"] != INVITATION_TOKEN:
            return problem(401, "invitation_refused", "this invitation is unknown, used, replaced or expired")
        if body["password"] == WEAK_PASSWORD:
            return _weak_password()
        self.accepted.append(body["password"])
        joined = Joined(customer_id="cust_1", user_id="user_2", email=INVITED, role="viewer")
        return httpx.Response(201, content=to_json(joined))

    def answer(self, request: httpx.Request, customer: str, role: str) -> httpx.Response | None:
        """The answer to a request of a user with this role; None if it is about something else."""
        path = request.url.path
        if path == f"{customer}/audit-log":
            return self._audit_log(request.url.params)
        if path == "/auth/password":
            return self._change_password(json.loads(request.content))
        if path == "/auth/sessions" or path.startswith("/auth/sessions/"):
            return self._collection(request, "/auth/sessions", self.sessions, "session_id")
        owners: dict[str, tuple[list[Any], str]] = {
            f"{customer}/users": (self.users, "user_id"),
            f"{customer}/api-keys": (self.api_keys, "key_id"),
            f"{customer}/agent-tokens": (self.agent_tokens, "token_id"),
            f"{customer}/agent-install-command": ([], ""),
        }
        found = next((known for known in owners if path == known or path.startswith(f"{known}/")), None)
        if found is None:
            return None
        if role != "owner":
            return problem(403, "forbidden", f"this needs the role owner; yours is {role}")
        if request.method == "POST":
            return self._issue(request)
        return self._collection(request, found, *owners[found])

    def _collection(self, request: httpx.Request, root: str, items: list[Any], id_field: str) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, content=to_json(items))
        item_id = request.url.path.removeprefix(f"{root}/")
        if item_id == "user_1":
            return problem(409, "last_owner", "the last owner cannot be removed: invite another one first")
        kept = [item for item in items if getattr(item, id_field) != item_id]
        if len(kept) == len(items):
            return problem(404, "not_found", f"no such {id_field.removesuffix('_id')}")
        items[:] = kept
        self.changes.append((str(request.url.path), None))
        return httpx.Response(204)

    def _issue(self, request: httpx.Request) -> httpx.Response:
        key = request.headers["idempotency-key"]
        if key in self.keys:
            return problem(409, "already_issued", "this was issued before")
        body = json.loads(request.content or b"null")
        if body and body.get("email") == "ops@acme.example":
            return problem(409, "already_a_user", "a user of yours has this e-mail address")
        self.keys.add(key)
        self.changes.append((str(request.url.path), body))
        expires_at = (NOW + timedelta(days=7)).isoformat()
        issued = {"expires_at": expires_at, **(body or {}), "user_id": "user_3", "key_id": "key_3"}
        issued |= {"invitation_token": INVITATION_TOKEN, "api_key": API_KEY, "agent_token": AGENT_TOKEN}
        return httpx.Response(201, json=issued | {"install_command": f"run <{AGENT_TOKEN}>", "token_id": "token_3"})

    def _change_password(self, body: dict[str, Any]) -> httpx.Response:
        if body["current_password"] != self.password:
            return problem(401, "wrong_credentials", "wrong e-mail address or password")
        if body["new_password"] == WEAK_PASSWORD:
            return _weak_password()
        self.password = body["new_password"]
        self.sessions = [each for each in self.sessions if each.current]
        return httpx.Response(204)

    def _audit_log(self, query: httpx.QueryParams) -> httpx.Response:
        below = [entry for entry in reversed(self.audit_entries) if entry.seq < int(query["before"])]
        return httpx.Response(200, content=to_json(below[: int(query["limit"])]))


def session(session_id: str, *, current: bool) -> ActiveSession:
    """A session that was renewed once."""
    return ActiveSession(
        session_id=session_id,
        created_at=NOW,
        refreshed_at=NOW + timedelta(minutes=15),
        expires_at=NOW + timedelta(days=30),
        current=current,
    )


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


def _weak_password() -> httpx.Response:
    return problem(422, "weak_password", "the password is too common: choose another one")
