"""Sessions: forged tokens are refused, and what ends a session ends all of its tokens and streams at once."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from testbed.waiting import stretched
from tests.helpers.accounts import PASSWORD, Account, signed_up
from tests.helpers.callers import bearer, call, problem
from tests.helpers.database import update_one
from tests.helpers.forged_tokens import forgeries, signed
from tests.helpers.live import connect_live, server_sent, take
from tests.helpers.session_tokens import (
    assert_active,
    assert_ended,
    claims_of,
    closed_with,
    refreshed,
    refused_refresh,
)
from tests.helpers.users import joined

pytestmark = [pytest.mark.security, pytest.mark.filterwarnings("ignore:The HMAC key is")]

COOKIE = "optiinfra_session"
NEW_PASSWORD = "another four words, number 8"
SESSION_LIFETIME = timedelta(days=30)
AT_ONCE, ROUNDS = 60, 2
CLOSED_SECONDS = 6.0
"""A stream looks for an ended session every 10 seconds, unless it is notified."""


@pytest.mark.slow
def test_sessions_end_at_once_and_forged_tokens_are_refused(environment: dict[str, Any]) -> None:
    orchestrator, portal = environment["urls"]["orchestrator"], environment["urls"]["portal"]
    with signed_up(environment) as owner, httpx.Client(base_url=orchestrator, timeout=stretched(15)) as http:
        check_forged_tokens(environment, http, owner)
        check_expiry(environment, http, owner)
        check_reuse_and_sign_out_beside_refreshes(http, owner)
        check_session_list(http, owner, joined(http, owner, "viewer"))
        with httpx.Client(base_url=portal, timeout=stretched(15)) as browser:
            check_portal(http, browser, owner)
            check_cross_site_requests(http, browser, owner)
        check_removal_of_a_user(http, owner)
        check_password_change(http, owner)
        check_deletion_of_the_customer(http, owner)


def check_forged_tokens(environment: dict[str, Any], http: httpx.Client, owner: Account) -> None:
    """Only a token that our own key has signed, with our algorithm, for our audience and all claims, is accepted."""
    tokens = owner.sign_in(http)
    mine, access = owner.customer_id, tokens["access_token"]
    assert http.get("/auth/me", headers=bearer(signed(environment, access))).status_code == 200
    for name, forged in forgeries(environment, access).items():
        answer = http.delete(f"/customers/{mine}", headers=bearer(forged))
        assert problem(answer)[:2] == (401, "unauthenticated"), name
        if "algorithm" in name or "key" in name:
            with pytest.raises(InvalidStatus, match="403"):
                connect_live(http.base_url, mine, forged)
    assert http.get("/auth/me", headers=bearer(tokens["refresh_token"])).status_code == 401
    assert refused_refresh(http, {"refresh_token": access[:200]})
    assert_active(http, tokens)


def check_expiry(environment: dict[str, Any], http: httpx.Client, owner: Account) -> None:
    """Streams close when their token expires. Neither token outlives the session, whose lifetime no refresh extends."""
    tokens = owner.sign_in(http)
    short_lived = signed(environment, tokens["access_token"], exp=int(time.time()) + 3)
    with stream(http, owner, short_lived) as expiring, stream(http, owner, tokens["access_token"]) as staying:
        assert closed_with(expiring) == 4401
        assert time.time() >= claims_of(short_lived)["exp"], "closed before its token expired"
        assert http.get("/auth/me", headers=bearer(short_lived)).status_code == 401
        assert_open(staying)

    (session,) = [one for one in call(http, "GET", "/auth/sessions", tokens["access_token"]) if one["current"]]
    lifetime = datetime.fromisoformat(session["expires_at"]) - datetime.fromisoformat(session["created_at"])
    assert lifetime == SESSION_LIFETIME
    ends = "UPDATE sessions SET expires_at = now() + %s * interval '1 second' WHERE id = %s"
    update_one(environment, ends, 60, session["session_id"])
    successor = refreshed(http, tokens)
    assert 30 < successor["expires_in"] <= 60
    assert claims_of(successor["access_token"])["exp"] <= time.time() + 60
    update_one(environment, ends, -1, session["session_id"])
    assert_ended(http, tokens, successor)


def check_reuse_and_sign_out_beside_refreshes(http: httpx.Client, owner: Account) -> None:
    """Neither many refreshes beside a sign-out, nor a replay beside the rotation of its successor, leave a token."""
    other = owner.sign_in(http)
    for _ in range(ROUNDS):
        tokens = owner.sign_in(http)
        with ThreadPoolExecutor(AT_ONCE + 1) as threads:
            uses = [threads.submit(refresh, http, tokens) for _ in range(AT_ONCE)]
            leaving = threads.submit(http.post, "/auth/logout", headers=bearer(tokens["access_token"]))
        assert leaving.result().status_code in (204, 401), "signed out, or ended by the reuse"
        won = [use.result().json() for use in uses if use.result().status_code == 200]
        assert len(won) <= 1, "a refresh token was used twice"
        assert_ended(http, tokens, *won)

        used = owner.sign_in(http)
        successor = refreshed(http, used)
        with ThreadPoolExecutor(2) as threads:
            rotation, replay = (threads.submit(refresh, http, one) for one in (successor, used))
        assert replay.result().status_code == 401
        won = [rotation.result().json()] if rotation.result().status_code == 200 else []
        assert_ended(http, used, successor, *won)
    assert_active(http, other, refreshed(http, other))


def check_session_list(http: httpx.Client, owner: Account, viewer: Account) -> None:
    """Users see their own active sessions, and can end each of them, and nobody else's."""
    first, second, theirs = owner.sign_in(http), owner.sign_in(http), viewer.sign_in(http)
    mine = {one["session_id"]: one for one in call(http, "GET", "/auth/sessions", first["access_token"])}
    ids = [claims_of(one["access_token"])["sid"] for one in (first, second, theirs)]
    assert set(mine[ids[0]]) == {"session_id", "created_at", "refreshed_at", "expires_at", "current"}
    assert {one: mine[one]["current"] for one in ids[:2]} == {ids[0]: True, ids[1]: False}
    assert [one["current"] for one in mine.values()].count(True) == 1
    (listed,) = call(http, "GET", "/auth/sessions", theirs["access_token"])
    assert listed["session_id"] == ids[2]
    assert ids[2] not in mine

    def end(session_id: str) -> httpx.Response:
        return http.delete(f"/auth/sessions/{session_id}", headers=bearer(first["access_token"]))

    assert problem(end(ids[2])) == problem(end("session_000000000000000000000000"))
    assert problem(end(ids[2]))[:2] == (404, "not_found")
    with stream(http, owner, second["access_token"]) as closing:
        assert end(ids[1]).status_code == 204
        assert_ended(http, second)
        assert_closes(closing)
    assert problem(end(ids[1]))[0] == 404
    assert_active(http, first, theirs)
    left = {one["session_id"] for one in call(http, "GET", "/auth/sessions", first["access_token"])}
    assert left == set(mine) - {ids[1]}
    assert end(ids[0]).status_code == 204
    assert_ended(http, first)


def check_portal(http: httpx.Client, browser: httpx.Client, owner: Account) -> None:
    """Signing out closes the browser's stream, and a replayed cookie is worth nothing."""
    enter(browser, owner)
    cookie, page = browser.cookies[COOKIE], {"accept": "text/html"}
    with server_sent(browser, after=0) as events:
        other = owner.sign_in(http)
        call(http, "POST", f"/customers/{owner.customer_id}/analyze", other["access_token"], {"agent_type": "resource"})
        take(events, 1)
        began = time.monotonic()
        assert browser.post("/logout").status_code == 303
        assert all(sent.event == "change" for sent in events)
        assert time.monotonic() - began < stretched(CLOSED_SECONDS), "the stream outlived its session"
    for path in (f"/portal/customers/{owner.customer_id}/dashboard", "/events?after=0"):
        assert browser.get(path, headers={"cookie": f"{COOKIE}={cookie}"}).status_code == 401, path
    replayed = browser.get("/", headers=page | {"cookie": f"{COOKIE}={cookie}"})
    assert (replayed.status_code, replayed.headers["location"]) == (303, "/login?next=/")
    assert http.get("/auth/me", headers={"cookie": f"{COOKIE}={cookie}"}).status_code == 401
    assert_active(http, other)


def check_cross_site_requests(http: httpx.Client, browser: httpx.Client, owner: Account) -> None:
    """Forms that another site sends with the browser's cookie are refused, and change nothing."""
    cookie = enter(browser, owner)
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    own = f"{browser.base_url}".rstrip("/")
    foreign = (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": f"{own}.evil.example"},
        {"origin": "http://127.0.0.1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": own},
        {"sec-fetch-site": "same-origin", "origin": "https://evil.example"},
    )
    login = {"email": owner.email, "password": owner.password}
    for headers in foreign:
        for path, form in (
            ("/logout", {}),
            ("/recommendations/rec_1/approve", {}),
            ("/recommendations/rec_1/reject", {"reason": "no"}),
            ("/login", login),
        ):
            answer = browser.post(path, data=form, headers=headers)
            refused = (answer.status_code, answer.json()["type"].rpartition(":")[2])
            assert refused == (403, "foreign_origin"), f"{path} with {headers}"
            assert "set-cookie" not in answer.headers
        assert browser.get("/").status_code == 200, "the session has ended"
    assert browser.post("/logout", headers={"origin": own, "sec-fetch-site": "same-origin"}).status_code == 303


def check_removal_of_a_user(http: httpx.Client, owner: Account) -> None:
    """A removed user's tokens are refused and streams closed at once, and the password is worth nothing."""
    colleague, token = joined(http, owner, "approver"), owner.sign_in(http)
    theirs = colleague.sign_in(http)
    newer = refreshed(http, theirs)
    with stream(http, owner, newer["access_token"]) as closing, stream(http, owner, token["access_token"]) as staying:
        removed = http.delete(
            f"/customers/{owner.customer_id}/users/{colleague.user_id}", headers=bearer(token["access_token"])
        )
        assert removed.status_code == 204
        assert_ended(http, theirs, newer)
        assert_closes(closing)
        assert_open(staying)
    assert refused_sign_in(http, colleague.email, colleague.password)


def check_password_change(http: httpx.Client, owner: Account) -> None:
    """It needs the current password, keeps the session that asked for it, and ends all others of the user."""
    colleague = joined(http, owner, "viewer").sign_in(http)
    kept, ended = owner.sign_in(http), owner.sign_in(http)
    newer = refreshed(http, ended)

    def change(current: str, new: str) -> httpx.Response:
        body = {"current_password": current, "new_password": new}
        return http.post("/auth/password", headers=bearer(kept["access_token"]), json=body)

    assert problem(change(f"{PASSWORD}!", NEW_PASSWORD))[:2] == (401, "wrong_credentials")
    assert problem(change(PASSWORD, "password1234"))[:2] == (422, "weak_password")
    assert_active(http, kept, ended, newer)
    with stream(http, owner, newer["access_token"]) as closing, stream(http, owner, kept["access_token"]) as staying:
        assert change(PASSWORD, NEW_PASSWORD).status_code == 204
        assert_ended(http, ended, newer)
        assert_closes(closing)
        assert_open(staying)
    assert refused_sign_in(http, owner.email, PASSWORD)
    assert problem(change(PASSWORD, NEW_PASSWORD))[:2] == (401, "wrong_credentials")
    body = {"username": owner.email, "password": NEW_PASSWORD}
    assert http.post("/auth/login", json=body).status_code == 200
    assert_active(http, kept, refreshed(http, kept), colleague)


def check_deletion_of_the_customer(http: httpx.Client, owner: Account) -> None:
    """The sessions of a deleted customer's users end with it."""
    body = {"username": owner.email, "password": NEW_PASSWORD}
    tokens = call(http, "POST", "/auth/login", body=body)
    with stream(http, owner, tokens["access_token"]) as closing:
        call(http, "DELETE", f"/customers/{owner.customer_id}", tokens["access_token"])
        assert_ended(http, tokens)
        assert_closes(closing)
    assert refused_sign_in(http, owner.email, NEW_PASSWORD)


@contextmanager
def stream(http: httpx.Client, owner: Account, token: str) -> Iterator[ClientConnection]:
    """An open event stream of the customer."""
    with connect_live(http.base_url, f"{owner.customer_id}?after={2**40}", token) as socket:
        yield socket


def assert_closes(socket: ClientConnection) -> None:
    """The stream is closed because its session has ended, and soon."""
    began = time.monotonic()
    assert closed_with(socket) == 4401
    assert time.monotonic() - began < stretched(CLOSED_SECONDS), "the stream outlived its session"


def assert_open(socket: ClientConnection) -> None:
    """The other side answers a ping."""
    answered = False
    with suppress(ConnectionClosed):
        answered = socket.ping().wait(stretched(5))
    assert answered, "the stream is closed"


def refresh(http: httpx.Client, tokens: dict[str, Any]) -> httpx.Response:
    """The answer to the use of a refresh token."""
    return http.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]})


def refused_sign_in(http: httpx.Client, email: str, password: str) -> bool:
    """Whether a sign-in is refused without telling why."""
    answer = http.post("/auth/login", json={"username": email, "password": password})
    return problem(answer) == (401, "wrong_credentials", "wrong e-mail address or password")


def enter(browser: httpx.Client, owner: Account) -> str:
    """Sign in at the portal; the header that sets the cookie."""
    entered = browser.post("/login", data={"email": owner.email, "password": owner.password})
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    return entered.headers["set-cookie"]
