"""The audit log: complete, without secrets, and with every change of it noticed."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest

from optiinfra.api.common import PORTAL_CLIENT_HEADER, PORTAL_SECRET_HEADER
from testbed import consistency
from tests.helpers.accounts import PASSWORD, Account, add_user, signed_up
from tests.helpers.callers import bearer, call
from tests.helpers.database import execute
from tests.helpers.private_platform import PrivatePlatform, private_platform_over
from tests.helpers.stores import Stores

pytestmark = pytest.mark.security

SECRETS = ("access_token", "refresh_token", "agent_token")
UNKNOWN = "cust_" + "0" * 24


class Story:
    """Sends requests, and keeps what the audit log must say of each, and every secret in the answers."""

    def __init__(self, http: httpx.Client, owner: Account, address: str) -> None:
        self._http, self._owner, self._address = http, owner, address
        self.expected: list[dict[str, Any]] = []
        self.secrets = [PASSWORD]

    def expect(self, action: str, answer: httpx.Response, actor: str, **more: Any) -> None:
        entry = {"actor_kind": "user", "actor": actor, "action": action, "status": answer.status_code}
        self.expected.append(
            entry | {"address": self._address, "target": {}, "trace_id": answer.headers["x-trace-id"]} | more
        )

    def send(self, method: str, path: str, token: str = "", body: object = None, **headers: str) -> httpx.Response:
        answer = self._http.request(method, path, json=body, headers=headers | (bearer(token) if token else {}))
        document = answer.json() if answer.content else {}
        if isinstance(document, dict):
            self.secrets += [value for name, value in document.items() if name in SECRETS]
        return answer

    def sign_in(self, user: Account, password: str = PASSWORD, **headers: str) -> httpx.Response:
        answer = self.send("POST", "/auth/login", body={"username": user.email, "password": password}, **headers)
        self.expect(
            "POST /auth/login",
            answer,
            user.user_id,
            address=headers.get(PORTAL_CLIENT_HEADER, self._address),
        )
        return answer


def tell(story: Story, owner: Account, viewer: Account, portal_secret: str) -> str:
    """Every kind of thing that is recorded, and some that are not; returns the owner's access token."""
    mine = {"customer_id": owner.customer_id}
    customer = f"/customers/{owner.customer_id}"
    assert story.sign_in(owner, "wrong password").status_code == 401
    forwarded = {PORTAL_SECRET_HEADER: portal_secret, PORTAL_CLIENT_HEADER: "203.0.113.7"}
    tokens = story.sign_in(owner, **forwarded).json()
    renewed = story.send("POST", "/auth/refresh", body={"refresh_token": tokens["refresh_token"]})
    story.expect("POST /auth/refresh", renewed, owner.user_id)
    token = str(renewed.json()["access_token"])
    assert story.send("GET", customer, token).status_code == 200
    assert story.send("PATCH", f"{customer}/preferences", token, {"priority": "speed"}).status_code == 422
    changed = story.send("PATCH", f"{customer}/preferences", token, {"priority": "cost"})
    story.expect("PATCH /customers/{customer_id}/preferences", changed, owner.user_id, target=mine)
    installed = story.send("POST", f"{customer}/agent-install-command", token)
    story.expect("POST /customers/{customer_id}/agent-install-command", installed, owner.user_id, target=mine)
    token_id = installed.json()["token_id"]
    connect = mine | {"agent_token": installed.json()["agent_token"], "hostname": "h", "version": "1"}
    connected = story.send("POST", "/agent-runtime/connect", body=connect)
    story.expect("POST /agent-runtime/connect", connected, token_id, actor_kind="runtime")
    revoked = story.send("DELETE", f"{customer}/agent-tokens/{token_id}", token)
    route = "DELETE /customers/{customer_id}/agent-tokens/{token_id}"
    story.expect(route, revoked, owner.user_id, target=mine | {"token_id": token_id})
    foreign = story.send("GET", f"/customers/{UNKNOWN}/recommendations", token)
    assert foreign.status_code == 404
    story.expect("GET /customers/{customer_id}/recommendations", foreign, owner.user_id, target={"customer_id": "anon"})
    unknown = story.send("GET", f"/optimizations/opt_{'0' * 24}", token)
    assert unknown.status_code == 404
    story.expect(
        "GET /optimizations/{optimization_id}", unknown, owner.user_id, target={"optimization_id": "opt_" + "0" * 24}
    )
    watching = str(story.sign_in(viewer).json()["access_token"])
    refused = story.send("PATCH", f"{customer}/preferences", watching, {"priority": "cost"})
    assert refused.status_code == 403
    story.expect("PATCH /customers/{customer_id}/preferences", refused, viewer.user_id, target=mine)
    used = story.send("POST", "/auth/refresh", body={"refresh_token": tokens["refresh_token"]})
    assert used.status_code == 401
    story.expect("POST /auth/refresh", used, owner.user_id)
    token = str(story.sign_in(owner).json()["access_token"])  # the reuse has ended the session
    ended = story.send("POST", "/auth/logout", watching)
    story.expect("POST /auth/logout", ended, viewer.user_id)
    assert story.send("GET", customer, watching).status_code == 401, "recorded in the platform's own chain"
    return token


def check_entries(http: httpx.Client, story: Story, customer_id: str, token: str) -> None:
    """The log has exactly what happened, in order, by page, and no secret."""
    path = f"/customers/{customer_id}/audit-log"
    entries = call(http, "GET", path, token)
    signed_up_entry, *later = entries
    assert (signed_up_entry["action"], signed_up_entry["status"]) == ("POST /auth/signup", 201)
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    foreign = next(entry for entry in later if "customer_id" in entry["target"] and entry["status"] == 404)
    assert foreign["target"]["customer_id"].startswith("anon_")
    foreign["target"] = {"customer_id": "anon"}
    assert [{key: entry[key] for key in story.expected[0]} for entry in later] == story.expected
    assert call(http, "GET", f"{path}?after=3&limit=2", token) == entries[3:5]
    assert call(http, "GET", f"{path}?before=5&limit=2", token) == entries[3:1:-1]
    assert call(http, "GET", f"{path}?after=2&before=5", token) == entries[3:1:-1]
    text = json.dumps(entries)
    assert [secret for secret in story.secrets if secret in text] == []


def broken_chains(platform: PrivatePlatform) -> list[tuple[str, int, str]]:
    """The first place of each chain that is not as it was written."""
    document = consistency.fetch(platform.described, "/admin/audit-verification")
    assert document["verified"] == (document["broken"] == [])
    return [(one["customer_id"], one["seq"], one["reason"]) for one in document["broken"]]


@contextmanager
def tampered(document: dict[str, Any], statement: str, *values: object) -> Iterator[None]:
    """Change the log as somebody with all rights in PostgreSQL could; it is restored afterwards."""
    execute(document, "CREATE TABLE kept AS SELECT * FROM audit_log")
    execute(document, "ALTER TABLE audit_log DISABLE TRIGGER append_only")
    try:
        execute(document, statement, *values)
        yield
    finally:
        execute(document, "DELETE FROM audit_log")
        execute(document, "INSERT INTO audit_log SELECT * FROM kept")
        execute(document, "ALTER TABLE audit_log ENABLE TRIGGER append_only")
        execute(document, "DROP TABLE kept")


def check_tampering(platform: PrivatePlatform, customer_id: str, newest: int) -> None:
    """PostgreSQL refuses changes; whoever overcomes that is noticed, with the first place that is wrong."""
    document = platform.document
    done = platform.invoke("verify-audit")
    assert (done.returncode, "are as they were written" in done.stdout) == (0, True), done.stderr
    for statement in ("UPDATE audit_log SET status = 200", "DELETE FROM audit_log", "TRUNCATE audit_log"):
        with pytest.raises(psycopg.errors.RaiseException, match="cannot be changed"):
            execute(document, statement)
    cases: list[tuple[str, int, str]] = [
        ("UPDATE audit_log SET status = 200 WHERE chain = %s AND seq = %s", 2, "altered"),
        ("UPDATE audit_log SET at = at + interval '1 second' WHERE chain = %s AND seq = %s", 3, "altered"),
        ("UPDATE audit_log SET address = '192.0.2.1' WHERE chain = %s AND seq = %s", 4, "altered"),
        ("UPDATE audit_log SET mac = repeat('0', 64) WHERE chain = %s AND seq = %s", newest, "altered"),
        ("DELETE FROM audit_log WHERE chain = %s AND seq = %s", 5, "missing"),
        ("DELETE FROM audit_log WHERE chain = %s AND seq = %s", newest, "removed from the end"),
    ]
    for statement, seq, reason in cases:
        with tampered(document, statement, customer_id, seq):
            assert broken_chains(platform) == [(customer_id, seq, reason)], statement
    with tampered(document, "DELETE FROM audit_log WHERE chain = %s", customer_id):
        done = platform.invoke("verify-audit")
        assert done.returncode == 1
        assert re.search(r"broken audit chains: 1\n  anon_\w+, entry 1: removed from the end", done.stderr), done.stderr
    assert broken_chains(platform) == []


def check_deletion(platform: PrivatePlatform, http: httpx.Client, owner: Account, token: str, newest: int) -> None:
    """A deleted customer leaves a tombstone that says nothing about persons, and an intact log."""
    assert http.delete(f"/customers/{owner.customer_id}", headers=bearer(token)).status_code == 204
    query = "SELECT target, actor, address FROM audit_log WHERE chain = '' AND action = 'customer deleted'"
    ((target, actor, address),) = execute(platform.document, query)
    assert target["customer_id"].startswith("anon_")
    assert (target["entries"], actor, address) == (str(newest), "", "")
    stores = Stores(platform.document)
    assert stores.count_mentions([owner.customer_id, owner.user_id, owner.email]) == {}
    stores.close()
    assert broken_chains(platform) == []


@pytest.mark.slow
def test_audit_log_is_complete_holds_no_secret_and_shows_tampering(environment: dict[str, Any]) -> None:
    with private_platform_over(environment, f"audit-{os.getpid()}", proxied=(), agents=False) as platform:
        document = platform.document
        with signed_up(document) as owner, httpx.Client(base_url=document["urls"]["orchestrator"], timeout=30) as http:
            story = Story(http, owner, environment["host_address"])
            viewer = add_user(document, owner.customer_id, "viewer")
            token = tell(story, owner, viewer, document["credentials"]["portal_secret"])
            check_entries(http, story, owner.customer_id, token)
            newest = 1 + len(story.expected)
            check_tampering(platform, owner.customer_id, newest)
            check_deletion(platform, http, owner, token, newest)
