"""Rate limits of sign-in, sign-up and the API, and the lockout after wrong passwords."""

import os
from typing import Any

import httpx
import pytest

from optiinfra.api.common import PORTAL_CLIENT_HEADER, PORTAL_SECRET_HEADER
from tests.helpers.accounts import PASSWORD
from tests.helpers.callers import bearer, call, problem
from tests.helpers.private_platform import private_platform_over

pytestmark = pytest.mark.security

SIGN_INS, SIGN_UPS, API_CALLS, FAILURES, LOCKED_SECONDS = 8, 5, 30, 3, 60
LIMITS = {
    "RATE_LIMIT_SIGN_IN": f"{SIGN_INS}/minute",
    "RATE_LIMIT_SIGN_UP": f"{SIGN_UPS}/minute",
    "RATE_LIMIT_API": f"{API_CALLS}/minute",
    "RATE_LIMIT_LOCKOUT_FAILURES": str(FAILURES),
    "RATE_LIMIT_LOCKOUT_SECONDS": str(LOCKED_SECONDS),
}


class Visitor:
    """Somebody without a credential, at this machine's address or one that the portal forwards."""

    def __init__(self, http: httpx.Client, portal_secret: str, address: str | None = None) -> None:
        self._http = http
        forwarded = {PORTAL_SECRET_HEADER: portal_secret, PORTAL_CLIENT_HEADER: address or ""}
        self._headers = forwarded if address else {}

    def sign_up(self, name: str) -> httpx.Response:
        body = {"email": email(name), "company_name": name, "password": PASSWORD}
        return self._http.post("/auth/signup", json=body, headers=self._headers)

    def sign_in(self, name: str, password: str = PASSWORD, headers: dict[str, str] | None = None) -> httpx.Response:
        body = {"username": email(name), "password": password}
        return self._http.post("/auth/login", json=body, headers=self._headers | (headers or {}))


def email(name: str) -> str:
    return f"{name}@example.com"


def assert_refused(answer: httpx.Response, most_seconds: int) -> int:
    """The answer refuses because of a limit; returns the seconds to wait."""
    status, kind, detail = problem(answer)
    assert (status, kind) == (429, "rate_limited"), detail
    seconds = int(answer.headers["retry-after"])
    assert 1 <= seconds <= most_seconds, f"Retry-After is {seconds}"
    return seconds


def check_sign_up(here: Visitor, there: Visitor) -> None:
    """So many customers may sign up from an address in a minute; another address is not affected."""
    for name in ("locked", "busy", "a", "b", "c"):
        assert here.sign_up(name).status_code == 201
    assert_refused(here.sign_up("d"), 60)
    assert there.sign_up("d").status_code == 201


def check_lockout(here: Visitor, there: Visitor) -> None:
    """Wrong passwords lock an account for their address, and tell nothing of the account."""
    answers = [[here.sign_in(name, "wrong") for _ in range(FAILURES + 1)] for name in ("locked", "nobody")]
    told = [[(answer.status_code, answer.json()["detail"]) for answer in each] for each in answers]
    assert told[0] == told[1], "whether an account exists shows"
    assert [status for status, _ in told[0]] == [401] * FAILURES + [429]
    assert_refused(here.sign_in("locked"), LOCKED_SECONDS)
    forged: list[dict[str, str]] = [
        {"X-Forwarded-For": "203.0.113.9"},
        {"Forwarded": "for=203.0.113.9"},
        {PORTAL_SECRET_HEADER: "guessed", PORTAL_CLIENT_HEADER: "203.0.113.9"},
        {PORTAL_CLIENT_HEADER: "203.0.113.9"},
    ]
    for headers in forged:
        assert_refused(here.sign_in("locked", headers=headers), LOCKED_SECONDS)
    assert_refused(here.sign_in("LOCKED"), LOCKED_SECONDS)
    assert there.sign_in("locked").status_code == 200, "the owner is locked out from elsewhere"


def check_sign_in(here: Visitor, there: Visitor) -> None:
    """Right passwords are limited, too: each costs as much to verify."""
    statuses = [here.sign_in("busy").status_code for _ in range(SIGN_INS)]
    assert statuses == [200] * SIGN_INS
    assert_refused(here.sign_in("busy"), 60)
    assert here.sign_in("a").status_code == 200
    assert there.sign_in("busy").status_code == 200


def check_api(here: Visitor, http: httpx.Client) -> None:
    """All users of a customer share a limit; other customers are not affected."""
    sessions: list[dict[str, Any]] = [here.sign_in(name).json() for name in ("b", "b", "c")]
    first, second, other = (bearer(each["access_token"]) for each in sessions)
    for number in range(API_CALLS):
        answer = http.get("/auth/me", headers=(first, second)[number % 2])
        assert answer.status_code == 200, answer.text
    assert_refused(http.get("/auth/me", headers=first), 60)
    assert_refused(http.get("/auth/me", headers=second), 60)
    assert call(http, "GET", "/auth/me", other["Authorization"].removeprefix("Bearer "))["email"] == email("c")
    assert http.get("/auth/me").status_code == 401
    assert http.get("/health").status_code == 200


@pytest.mark.slow
def test_rate_limits_and_lockout_hold_for_each_account_address_and_customer(environment: dict[str, Any]) -> None:
    with private_platform_over(environment, f"rate-limits-{os.getpid()}", LIMITS, proxied=(), agents=False) as platform:
        secret = platform.document["credentials"]["portal_secret"]
        with httpx.Client(base_url=platform.document["urls"]["orchestrator"], timeout=30) as http:
            here, there = Visitor(http, secret), Visitor(http, secret, "203.0.113.7")
            check_sign_up(here, there)
            check_lockout(here, there)
            check_sign_in(here, there)
            check_api(here, http)
