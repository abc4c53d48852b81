"""Agent tokens and API keys: shown once, stored hashed, scoped, and refused once they are deleted or expired."""

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from testbed.waiting import stretched, wait_until
from tests.helpers.accounts import Account, add_user, signed_up
from tests.helpers.callers import bearer, call, problem
from tests.helpers.database import execute, update_one

pytestmark = pytest.mark.security

YEAR = timedelta(days=365)
REFUSED = (401, "unauthenticated")


def test_agent_tokens_and_api_keys_end_when_deleted_or_expired_and_are_never_shown_again(
    environment: dict[str, Any],
) -> None:
    with (
        httpx.Client(base_url=environment["urls"]["orchestrator"], timeout=stretched(15)) as http,
        signed_in(environment, http) as (owner, owner_token),
        signed_in(environment, http) as (_, stranger_token),
    ):
        check_agent_tokens_are_shown_once(environment, http, owner, owner_token)
        check_agent_tokens_end(environment, http, owner, owner_token, stranger_token)
        check_last_use(environment, http, owner, owner_token)
        check_api_keys_are_shown_once(environment, http, owner, owner_token)
        check_api_keys_are_scoped(http, owner, owner_token, stranger_token)
        check_api_keys_end(environment, http, owner, owner_token, stranger_token)
        check_only_owners_manage_credentials(environment, http, owner, owner_token, stranger_token)


@contextmanager
def signed_in(environment: dict[str, Any], http: httpx.Client) -> Iterator[tuple[Account, str]]:
    """The owner of a new customer, with an access token."""
    with signed_up(environment) as owner:
        yield owner, owner.sign_in(http)["access_token"]


def check_agent_tokens_are_shown_once(
    environment: dict[str, Any], http: httpx.Client, owner: Account, token: str
) -> None:
    """Only the POST issues tokens and shows them. The list has everything but the secret, PostgreSQL its hash only."""
    mine = f"/customers/{owner.customer_id}"
    assert http.get(f"{mine}/agent-install-command", headers=bearer(token)).status_code == 405
    assert call(http, "GET", f"{mine}/agent-tokens", token) == []
    older, newer = (install(http, owner, token) for _ in range(2))
    assert older["agent_token"] != newer["agent_token"]
    for issued in (older, newer):
        assert set(issued) == {"install_command", "agent_token", "token_id", "expires_at"}
        assert issued["agent_token"].startswith("agtok_")
        assert issued["agent_token"] in issued["install_command"]
        assert_lifetime(issued["expires_at"], YEAR)
    answer = http.get(f"{mine}/agent-tokens", headers=bearer(token))
    listed = answer.json()
    assert [one["token_id"] for one in listed] == [newer["token_id"], older["token_id"]]
    assert [one["expires_at"] for one in listed] == [newer["expires_at"], older["expires_at"]]
    assert [one["last_used_at"] for one in listed] == [None, None]
    assert set(listed[0]) == {"token_id", "created_at", "expires_at", "last_used_at"}
    assert [one["token_id"] for one in call(http, "GET", f"{mine}/agent-tokens?limit=1", token)] == [newer["token_id"]]
    for issued in (older, newer):
        assert_secret_is_hashed(environment, "agent_tokens", issued["token_id"], issued["agent_token"])
        assert issued["agent_token"] not in answer.text


def check_agent_tokens_end(
    environment: dict[str, Any], http: httpx.Client, owner: Account, token: str, stranger: str
) -> None:
    """A deleted token is refused at the next request, its long poll ends, and so is an expired one; others stay."""
    deleted, expired, kept = (install(http, owner, token) for _ in range(3))
    runtimes = {one["token_id"]: connect(http, owner, one) for one in (deleted, expired, kept)}
    itself = f"/customers/{owner.customer_id}/agent-tokens/{deleted['token_id']}"
    assert problem(http.delete(itself, headers=bearer(stranger)))[:2] == (404, "not_found")
    runtime_id = runtimes[deleted["token_id"]]
    with ThreadPoolExecutor() as threads:
        began = time.monotonic()
        waiting = threads.submit(poll, http, deleted, runtime_id, seconds=30)
        seen = "SELECT last_seen_at > connected_at FROM runtimes WHERE id = %s"
        wait_until(lambda: execute(environment, seen, runtime_id) == [(True,)], "the runtime's long poll", 10)
        assert http.delete(itself, headers=bearer(token)).status_code == 204
        for refused in (
            poll(http, deleted, runtime_id),
            beat(http, deleted, runtime_id),
            reconnect(http, owner, deleted),
        ):
            assert problem(refused)[:2] == REFUSED
        assert problem(waiting.result())[:2] == REFUSED
        assert time.monotonic() - began < stretched(8), "the long poll outlived its token"
    assert problem(http.delete(itself, headers=bearer(token)))[:2] == (404, "not_found")

    assert poll(http, expired, runtimes[expired["token_id"]]).status_code == 200
    expire(environment, "agent_tokens", expired["token_id"])
    for refused in (poll(http, expired, runtimes[expired["token_id"]]), reconnect(http, owner, expired)):
        assert problem(refused)[:2] == REFUSED
    assert poll(http, kept, runtimes[kept["token_id"]]).status_code == 200
    listed = call(http, "GET", f"/customers/{owner.customer_id}/agent-tokens", token)
    ids = {one["token_id"] for one in listed}
    assert (kept["token_id"] in ids, {deleted["token_id"], expired["token_id"]} & ids) == (True, set())
    changed = kept["agent_token"][:-1] + ("A" if kept["agent_token"][-1] != "A" else "B")
    assert problem(reconnect(http, owner, kept | {"agent_token": changed}))[:2] == REFUSED


def check_last_use(environment: dict[str, Any], http: httpx.Client, owner: Account, token: str) -> None:
    """The last use is listed. It is written once a minute, not with every request."""
    issued = install(http, owner, token)

    def last_use() -> datetime | None:
        listed = call(http, "GET", f"/customers/{owner.customer_id}/agent-tokens", token)
        (found,) = [one["last_used_at"] for one in listed if one["token_id"] == issued["token_id"]]
        return None if found is None else datetime.fromisoformat(found)

    runtime_id = connect(http, owner, issued)
    first = last_use()
    assert first is not None
    assert abs(datetime.now(UTC) - first) < timedelta(seconds=stretched(10))
    assert poll(http, issued, runtime_id).status_code == 200
    assert last_use() == first
    for seconds, renewed in ((30, False), (61, True)):
        earlier = "UPDATE agent_tokens SET last_used_at = now() - %s * interval '1 second' WHERE id = %s"
        update_one(environment, earlier, seconds, issued["token_id"])
        before = last_use()
        assert poll(http, issued, runtime_id).status_code == 200
        assert (last_use() != before) is renewed, f"used {seconds} s after the last recorded use"


def check_api_keys_are_shown_once(environment: dict[str, Any], http: httpx.Client, owner: Account, token: str) -> None:
    """The list has everything but the secret, PostgreSQL its hash only. Names, scopes and lifetimes are bounded."""
    keys = f"/customers/{owner.customer_id}/api-keys"
    assert call(http, "GET", keys, token) == []
    for invalid in (
        {"name": "k", "scope": "owner"},
        {"name": "k"},
        {"name": "", "scope": "read"},
        {"name": "k" * 201, "scope": "read"},
        {"name": "k", "scope": "read", "expires_in_days": 0},
        {"name": "k", "scope": "read", "expires_in_days": 366},
        {"name": "k", "scope": "read", "role": "owner"},
    ):
        assert http.post(keys, headers=bearer(token), json=invalid).status_code == 422, invalid
    older = issue(http, owner, token, "read", name="nightly report")
    newer = issue(http, owner, token, "approve", expires_in_days=365)
    assert set(older) == {"api_key", "key_id", "name", "scope", "expires_at"}
    assert_lifetime(older["expires_at"], timedelta(days=90))
    assert_lifetime(newer["expires_at"], YEAR)
    answer = http.get(keys, headers=bearer(token))
    unused = {"created_at", "last_used_at"}
    expected = [{name: value for name, value in key.items() if name != "api_key"} for key in (newer, older)]
    assert [{name: value for name, value in key.items() if name not in unused} for key in answer.json()] == expected
    assert [key["last_used_at"] for key in answer.json()] == [None, None]
    assert (older["name"], older["scope"], newer["scope"]) == ("nightly report", "read", "approve")
    for issued in (older, newer):
        assert issued["api_key"].startswith("apikey_")
        assert issued["api_key"] not in answer.text
        assert_secret_is_hashed(environment, "api_keys", issued["key_id"], issued["api_key"])


def check_api_keys_are_scoped(http: httpx.Client, owner: Account, token: str, stranger: str) -> None:
    """A key reads its own customer; one that may approve also analyzes; none does what needs an owner or a person."""
    mine = f"/customers/{owner.customer_id}"
    read, approve = (issue(http, owner, token, scope)["api_key"] for scope in ("read", "approve"))
    theirs = call(http, "GET", "/auth/me", stranger)["customer_id"]
    for key in (read, approve):
        assert call(http, "GET", mine, key)["id"] == owner.customer_id
        for path in ("infrastructure", "recommendations", "optimizations", "events"):
            assert http.get(f"{mine}/{path}", headers=bearer(key)).status_code == 200, path
        assert problem(http.get(f"/customers/{theirs}", headers=bearer(key)))[0] == 404
        for method, path, body in (
            ("PATCH", f"{mine}/preferences", {"priority": "cost"}),
            ("DELETE", mine, None),
            ("GET", "/auth/me", None),
            ("POST", "/auth/logout", None),
            ("GET", "/agent-runtime/runtime_1/commands?wait=0", None),
            ("GET", "/admin/consistency", None),
        ):
            answer = http.request(method, path, headers=bearer(key), json=body)
            assert problem(answer)[:2] == (403, "forbidden"), f"{method} {path}"
    analyze = {"agent_type": "resource"}
    refused = http.post(f"{mine}/analyze", headers=bearer(read), json=analyze)
    assert problem(refused)[:2] == (403, "forbidden")
    for path, body in (
        ("/recommendations/rec_1/approve", None),
        ("/recommendations/rec_1/reject", {"reason": "no"}),
        ("/optimizations/opt_1/rollback", None),
    ):
        assert problem(http.post(path, headers=bearer(read), json=body))[0] == 403, path
        assert problem(http.post(path, headers=bearer(approve), json=body))[0] == 404, path
    assert http.post(f"{mine}/analyze", headers=bearer(approve), json=analyze).status_code == 202


def check_api_keys_end(
    environment: dict[str, Any], http: httpx.Client, owner: Account, token: str, stranger: str
) -> None:
    """A deleted key and an expired one are refused at the next request and no longer listed; others stay."""
    mine = f"/customers/{owner.customer_id}"
    deleted, expired, kept = (issue(http, owner, token, "read") for _ in range(3))
    itself = f"{mine}/api-keys/{deleted['key_id']}"
    assert problem(http.delete(itself, headers=bearer(stranger)))[0] == 404
    theirs = call(http, "GET", "/auth/me", stranger)["customer_id"]
    through_theirs = http.delete(f"/customers/{theirs}/api-keys/{deleted['key_id']}", headers=bearer(stranger))
    unknown = http.delete(f"/customers/{theirs}/api-keys/key_0", headers=bearer(stranger))
    assert problem(through_theirs) == problem(unknown)
    assert problem(unknown)[0] == 404
    assert [status(http, mine, key) for key in (deleted, expired, kept)] == [200, 200, 200]
    assert http.delete(itself, headers=bearer(token)).status_code == 204
    expire(environment, "api_keys", expired["key_id"])
    assert [status(http, mine, key) for key in (deleted, expired, kept)] == [401, 401, 200]
    assert problem(http.delete(itself, headers=bearer(token)))[0] == 404
    listed = {key["key_id"]: key["last_used_at"] for key in call(http, "GET", f"{mine}/api-keys", token)}
    assert listed.get(kept["key_id"]), "the last use of a key is listed"
    assert {deleted["key_id"], expired["key_id"]} & set(listed) == set()


def check_only_owners_manage_credentials(
    environment: dict[str, Any], http: httpx.Client, owner: Account, token: str, stranger: str
) -> None:
    """Approvers, viewers, API keys and runtimes may not see, issue or delete credentials; other customers get 404."""
    mine = f"/customers/{owner.customer_id}"
    kept = issue(http, owner, token, "approve")
    runtime = install(http, owner, token)
    callers = {
        role: add_user(environment, owner.customer_id, role).sign_in(http)["access_token"]
        for role in ("approver", "viewer")
    }
    callers |= {"API key": kept["api_key"], "runtime": runtime["agent_token"]}
    routes: list[tuple[str, str, object]] = [
        ("POST", "agent-install-command", None),
        ("GET", "agent-tokens", None),
        ("DELETE", f"agent-tokens/{runtime['token_id']}", None),
        ("POST", "api-keys", {"name": "k", "scope": "approve"}),
        ("GET", "api-keys", None),
        ("DELETE", f"api-keys/{kept['key_id']}", None),
    ]
    before = credential_ids(http, mine, token)
    for method, path, body in routes:
        for kind, credential in callers.items():
            answer = http.request(method, f"{mine}/{path}", headers=bearer(credential), json=body)
            assert problem(answer)[:2] == (403, "forbidden"), f"{method} {path} as {kind}"
        answer = http.request(method, f"{mine}/{path}", headers=bearer(stranger), json=body)
        assert problem(answer)[:2] == (404, "not_found"), f"{method} {path} as another customer's owner"
        assert problem(http.request(method, f"{mine}/{path}", json=body))[:2] == REFUSED, f"{method} {path}"
    assert credential_ids(http, mine, token) == before


def install(http: httpx.Client, owner: Account, token: str) -> dict[str, Any]:
    """A new agent token."""
    issued = http.post(f"/customers/{owner.customer_id}/agent-install-command", headers=bearer(token))
    assert issued.status_code == 201, issued.text
    body: dict[str, Any] = issued.json()
    return body


def issue(
    http: httpx.Client, owner: Account, token: str, scope: str, *, name: str = "key", **options: Any
) -> dict[str, Any]:
    """A new API key."""
    body = {"name": name, "scope": scope, **options}
    issued = http.post(f"/customers/{owner.customer_id}/api-keys", headers=bearer(token), json=body)
    assert issued.status_code == 201, issued.text
    made: dict[str, Any] = issued.json()
    return made


def credential_ids(http: httpx.Client, customer_path: str, token: str) -> list[str]:
    """The ids of all agent tokens and API keys of a customer."""
    tokens, keys = (call(http, "GET", f"{customer_path}/{path}", token) for path in ("agent-tokens", "api-keys"))
    return [one["token_id"] for one in tokens] + [one["key_id"] for one in keys]


def reconnect(http: httpx.Client, owner: Account, issued: dict[str, Any]) -> httpx.Response:
    """The answer to a runtime that connects."""
    body = {"customer_id": owner.customer_id, "agent_token": issued["agent_token"], "hostname": "h", "version": "1"}
    return http.post("/agent-runtime/connect", json=body)


def connect(http: httpx.Client, owner: Account, issued: dict[str, Any]) -> str:
    """The id of a runtime that connects with a token."""
    answer = reconnect(http, owner, issued)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["runtime_id"])


def poll(http: httpx.Client, issued: dict[str, Any], runtime_id: str, seconds: int = 0) -> httpx.Response:
    """The answer to a runtime that asks for commands."""
    path, headers = f"/agent-runtime/{runtime_id}/commands", bearer(issued["agent_token"])
    return http.get(path, params={"wait": seconds}, headers=headers, timeout=stretched(40))


def beat(http: httpx.Client, issued: dict[str, Any], runtime_id: str) -> httpx.Response:
    """The answer to a runtime that reports its deployments."""
    headers = bearer(issued["agent_token"])
    return http.put(f"/agent-runtime/{runtime_id}/inventory", headers=headers, json={"deployments": []})


def status(http: httpx.Client, path: str, key: dict[str, Any]) -> int:
    """The status with which a read with an API key is answered."""
    return http.get(path, headers=bearer(key["api_key"])).status_code


def expire(environment: dict[str, Any], table: str, credential_id: str) -> None:
    """Make a credential expire a second ago."""
    update_one(environment, f"UPDATE {table} SET expires_at = now() - interval '1 s' WHERE id = %s", credential_id)  # noqa: S608


def assert_lifetime(expires_at: str, lifetime: timedelta) -> None:
    """It has just begun its lifetime."""
    spent = datetime.now(UTC) + lifetime - datetime.fromisoformat(expires_at)
    assert timedelta(0) <= spent < timedelta(seconds=stretched(20))


def assert_secret_is_hashed(environment: dict[str, Any], table: str, credential_id: str, secret: str) -> None:
    """The row of a credential holds its SHA-256, and the secret nowhere."""
    ((row,),) = execute(environment, f"SELECT row_to_json(t)::text FROM {table} AS t WHERE id = %s", credential_id)  # noqa: S608
    assert hashlib.sha256(secret.encode()).hexdigest() in row
    assert secret.partition("_")[2] not in row
