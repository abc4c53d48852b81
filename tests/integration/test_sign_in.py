"""Sign-in, rotation of refresh tokens, and sign-out."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jwt
import pytest

from testbed.waiting import stretched
from tests.helpers.accounts import Account, add_user, signed_up
from tests.helpers.callers import bearer, call, problem
from tests.helpers.database import execute, update_one
from tests.helpers.live import connect_live, receive, server_sent, take
from tests.helpers.session_tokens import (
    assert_active,
    assert_ended,
    claims_of,
    closed_with,
    refreshed,
    refused_refresh,
)

pytestmark = pytest.mark.integration

ACCESS_SECONDS, REFRESH_SECONDS = 900, 14 * 24 * 3600
COOKIE = "optiinfra_session"
AT_ONCE = 8


def test_sign_in_rotation_and_sign_out_keep_their_promises(environment: dict[str, Any]) -> None:
    orchestrator, portal = environment["urls"]["orchestrator"], environment["urls"]["portal"]
    with signed_up(environment) as owner, httpx.Client(base_url=orchestrator, timeout=stretched(15)) as http:
        check_sign_in(environment, http, owner)
        check_access_token(environment, http, owner)
        check_rotation(environment, http, owner)
        check_reuse(http, owner)
        check_sign_out(http, owner, add_user(environment, owner.customer_id, "viewer"))
        check_concurrent_use(http, owner)
        with httpx.Client(base_url=portal, timeout=stretched(15)) as browser:
            check_portal(http, browser, owner)
        check_deletion(http, owner)


def check_sign_in(environment: dict[str, Any], http: httpx.Client, owner: Account) -> None:
    """Wrong credentials are refused without telling what is wrong; right ones give tokens of the stated lifetime."""
    wrong = [(owner.email, f"{owner.password}!"), (owner.email, owner.password.upper()), ("a@b.example", "x" * 12)]
    for username, password in wrong:
        answer = http.post("/auth/login", json={"username": username, "password": password})
        assert problem(answer) == (401, "wrong_credentials", "wrong e-mail address or password")
    began = time.time()
    tokens = owner.sign_in(http)
    assert set(tokens) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert (tokens["token_type"], tokens["expires_in"]) == ("bearer", ACCESS_SECONDS)
    assert 0 <= claims_of(tokens["access_token"])["exp"] - int(began) - ACCESS_SECONDS <= stretched(2)
    assert_new(environment, tokens["refresh_token"])
    expected = {"customer_id": owner.customer_id, "email": owner.email, "role": "owner"}
    assert call(http, "GET", "/auth/me", tokens["access_token"]) == expected
    written_otherwise = {"username": owner.email.upper(), "password": owner.password}
    assert call(http, "POST", "/auth/login", body=written_otherwise)["access_token"] != tokens["access_token"]


def check_access_token(environment: dict[str, Any], http: httpx.Client, owner: Account) -> None:
    """An access token is refused once it expires, and when it names no session or one that does not exist."""
    issued = owner.sign_in(http)["access_token"]
    claims, named = claims_of(issued), jwt.get_unverified_header(issued)

    def status(**changes: Any) -> int:
        changed = {name: value for name, value in (claims | changes).items() if value is not None}
        key = environment["credentials"]["token_signing_key"]
        token = jwt.encode(changed, key, algorithm="HS256", headers={"kid": named["kid"]})
        return http.get("/auth/me", headers=bearer(token)).status_code

    assert status() == 200
    assert status(exp=int(time.time()) - 1) == 401
    assert status(sid=None) == 401
    assert status(sid="session_000000000000000000000000") == 401


def check_rotation(environment: dict[str, Any], http: httpx.Client, owner: Account) -> None:
    """Each refresh gives new tokens of the same session with a full lifetime; an expired refresh token gives none."""
    first = owner.sign_in(http)
    second = refreshed(http, first)
    assert second["refresh_token"] != first["refresh_token"]
    assert (second["token_type"], second["expires_in"]) == ("bearer", ACCESS_SECONDS)
    assert_new(environment, second["refresh_token"])
    assert_active(http, first, second)
    lifetime = "UPDATE refresh_tokens SET expires_at = now() + %s * interval '1 second' WHERE token_hash = %s"
    update_one(environment, lifetime, -1, stored_as(second["refresh_token"]))
    assert refused_refresh(http, second)
    update_one(environment, lifetime, 60, stored_as(second["refresh_token"]))
    third = refreshed(http, second)
    assert_new(environment, third["refresh_token"])
    assert_active(http, first, second, third)
    for unknown in ("refresh_unknown", third["access_token"][:200], third["refresh_token"][:-1]):
        assert refused_refresh(http, {"refresh_token": unknown})
    assert_active(http, third)


def check_reuse(http: httpx.Client, owner: Account) -> None:
    """A refresh token that is used again ends its session with all of its tokens, and no other session."""
    other, first = owner.sign_in(http), owner.sign_in(http)
    second = refreshed(http, first)
    third = refreshed(http, second)
    assert refused_refresh(http, first)
    assert_ended(http, first, second, third)
    assert_active(http, other, refreshed(http, other))


def check_sign_out(http: httpx.Client, owner: Account, viewer: Account) -> None:
    """Sign-out ends the presented session at once: its access tokens, its refresh token and its event streams."""
    ended, kept, colleague = owner.sign_in(http), owner.sign_in(http), viewer.sign_in(http)
    newer = refreshed(http, ended)
    mine = owner.customer_id
    with (
        connect_live(http.base_url, mine, newer["access_token"]) as closing,
        connect_live(http.base_url, mine, kept["access_token"]) as staying,
    ):
        call(http, "POST", f"/customers/{mine}/analyze", kept["access_token"], {"agent_type": "resource"})
        assert receive(closing, 1) == receive(staying, 1)
        signing_out = http.post("/auth/logout", headers=bearer(ended["access_token"]))
        assert (signing_out.status_code, signing_out.content) == (204, b"")
        assert_ended(http, ended, newer)
        assert problem(http.post("/auth/logout", headers=bearer(newer["access_token"])))[0] == 401
        assert closed_with(closing) == 4401
        call(http, "POST", f"/customers/{mine}/analyze", kept["access_token"], {"agent_type": "resource"})
        assert "analysis_started" in {event["event_type"] for event in receive(staying, 2)}
    assert_active(http, kept, refreshed(http, kept), colleague, refreshed(http, colleague))


def check_concurrent_use(http: httpx.Client, owner: Account) -> None:
    """Of parallel uses of one refresh token one succeeds; a sign-out beside them leaves no token alive."""
    for beside in (False, True):
        tokens = owner.sign_in(http)
        body = {"refresh_token": tokens["refresh_token"]}
        with ThreadPoolExecutor(AT_ONCE + 1) as threads:
            uses = [threads.submit(http.post, "/auth/refresh", json=body) for _ in range(AT_ONCE)]
            if beside:
                threads.submit(http.post, "/auth/logout", headers=bearer(tokens["access_token"]))
        answers = [use.result() for use in uses]
        won = [answer.json() for answer in answers if answer.status_code == 200]
        assert [answer.status_code for answer in answers].count(401) == AT_ONCE - len(won)
        assert len(won) <= 1 if beside else len(won) == 1
        assert_ended(http, tokens, *won)


def check_portal(http: httpx.Client, browser: httpx.Client, owner: Account) -> None:
    """The portal signs in by a cookie that is worth nothing after the sign-out, and ends no other session."""
    other = owner.sign_in(http)
    wrong = browser.post("/login", data={"email": owner.email, "password": "wrong"})
    assert (wrong.status_code, wrong.headers.get("set-cookie")) == (401, None)
    entered = browser.post("/login", data={"email": owner.email, "password": owner.password})
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    assert "HttpOnly" in entered.headers["set-cookie"]
    assert "SameSite=strict" in entered.headers["set-cookie"]
    dashboard = f"/portal/customers/{owner.customer_id}/dashboard"
    page = browser.get("/", headers={"accept": "text/html"})
    assert (page.status_code, owner.email in page.text) == (200, True)
    assert browser.get(dashboard).status_code == 200
    cookie = browser.cookies[COOKIE]
    with server_sent(browser, after=0) as stream:
        call(http, "POST", f"/customers/{owner.customer_id}/analyze", other["access_token"], {"agent_type": "resource"})
        assert [sent.event for sent in take(stream, 1)] == ["change"]
        leaving = browser.post("/logout")
        assert (leaving.status_code, leaving.headers["location"]) == (303, "/login")
        assert COOKIE not in browser.cookies
        began = time.monotonic()
        assert all(sent.event == "change" for sent in stream), "the stream goes on with something else"
        assert time.monotonic() - began < stretched(5), "the stream outlived its session"
    browser.cookies.set(COOKIE, cookie)
    replayed = browser.get("/", headers={"accept": "text/html"})
    assert (replayed.status_code, replayed.headers["location"]) == (303, "/login?next=/")
    browser.cookies.set(COOKIE, cookie)
    for path in (dashboard, "/events?after=0"):
        assert browser.get(path).status_code == 401
    assert_active(http, other)


def check_deletion(http: httpx.Client, owner: Account) -> None:
    """Nobody is signed in as, or can sign in as, a user of a deleted customer."""
    tokens = owner.sign_in(http)
    call(http, "DELETE", f"/customers/{owner.customer_id}", tokens["access_token"])
    assert_ended(http, tokens)
    again = http.post("/auth/login", json={"username": owner.email, "password": owner.password})
    assert problem(again)[:2] == (401, "wrong_credentials")


def stored_as(refresh_token: str) -> str:
    """The hash that PostgreSQL holds in place of a refresh token."""
    return hashlib.sha256(refresh_token.encode()).hexdigest()


def assert_new(environment: dict[str, Any], refresh_token: str) -> None:
    """The refresh token is unused, and has just begun its full lifetime; its session has not ended."""
    query = (
        "SELECT extract(epoch FROM token.expires_at - now()), used_at, ended_at"
        " FROM refresh_tokens AS token JOIN sessions ON sessions.id = session_id WHERE token_hash = %s"
    )
    ((left, used, ended),) = execute(environment, query, stored_as(refresh_token))
    assert REFRESH_SECONDS - stretched(10) < left <= REFRESH_SECONDS
    assert (used, ended) == (None, None)
