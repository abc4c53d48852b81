"""Passwords: which are refused, how they are stored, and that nothing tells whether an account exists."""

import json
import time
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import httpx
import pytest

from testbed.waiting import stretched
from tests.helpers.accounts import PASSWORD, Account, signed_up
from tests.helpers.callers import bearer, call, problem
from tests.helpers.database import execute
from tests.helpers.users import invited

pytestmark = pytest.mark.security

COMPANY = "Juniper Freight"
COMMON = (
    "password1234",
    "Password123!",
    "qwertyuiop12",
    "iloveyou1234",
    "letmeinletmein",
    "123456789012",
    "abcdefghijkl",
    "aaaaaaaaaaaa",
    "1q2w3e4r5t6y",
)
WRONG = (401, "wrong_credentials", "wrong e-mail address or password")
ATTEMPTS = 9


@pytest.mark.slow
def test_passwords_are_strong_stored_hashed_and_tell_nothing_of_accounts(environment: dict[str, Any]) -> None:
    with httpx.Client(base_url=environment["urls"]["orchestrator"], timeout=stretched(15)) as http:
        with signed_up(environment) as owner:
            check_weak_passwords(http, owner)
            check_storage(environment, http, owner)
            check_answers_tell_nothing(http, owner)
            check_times_tell_nothing(http, owner)
        assert sign_in(http, owner.email, PASSWORD) == WRONG, "a deleted account looks like one that never was"
        check_comparison(environment, http)


def check_weak_passwords(http: httpx.Client, owner: Account) -> None:
    """Sign-up, invitations and password changes refuse the same passwords, do not show them, and change nothing."""
    email = f"wilhelmina-{uuid.uuid4().hex[:6]}@example.com"
    shapes = (
        "four words!",
        "w" + "four words " * 11 + "number",
        "four words\0 and a number",
        "four words \ud800 number",
    )
    assert [len(shapes[0]), len(shapes[1])] == [11, 128]
    refused: list[tuple[str, str]] = [(password, "invalid") for password in (shapes[0], f"{shapes[1]}s", *shapes[2:])]
    refused += [(password, "weak_password") for password in COMMON]
    of_context = (
        "Wilhelmina-2026!",
        "OptiInfra-2026-!",
        "juniperfreight",
        "Juniper--Freight 26",
        "\uff2auniper-Freight!",
    )
    for password, kind in [*refused, *((password, "weak_password") for password in of_context)]:
        body = {"email": email, "company_name": COMPANY, "password": password}
        assert_refused(post(http, "/auth/signup", body), kind, password)
    assert sign_in(http, email, PASSWORD) == WRONG
    few = [*refused[:1], *refused[4:5], ("Accounts 2026!", "weak_password")]
    invitation = invited(http, owner, "viewer", email)["invitation_token"]
    local_part, token = owner.email.partition("@")[0], owner.sign_in(http)["access_token"]
    for password, kind in (*few, ("Wilhelmina-2026!", "weak_password")):
        body = {"token": invitation, "password": password}
        assert_refused(post(http, "/auth/accept-invitation", body), kind, password)
    for password, kind in (*few, (f"{local_part}!", "weak_password")):
        body = {"current_password": PASSWORD, "new_password": password}
        assert_refused(post(http, "/auth/password", body, token), kind, password)
    assert owner.sign_in(http)
    for password in (shapes[1], "correct!hors"):
        body = {"current_password": PASSWORD, "new_password": password}
        assert post(http, "/auth/password", body, token).status_code == 204, f"{len(password)} characters"
        body = {"current_password": password, "new_password": PASSWORD}
        assert post(http, "/auth/password", body, token).status_code == 204


def check_storage(environment: dict[str, Any], http: httpx.Client, owner: Account) -> None:
    """Argon2id with the parameters that OWASP asks for at least, and a salt of its own for each user."""
    with signed_up(environment) as other:
        query = "SELECT password_hash, row_to_json(users)::text FROM users WHERE id IN (%s, %s)"
        rows = execute(environment, query, owner.user_id, other.user_id)
    for password_hash, row in rows:
        _, kind, version, parameters, salt, _ = password_hash.split("$")
        assert (kind, version) == ("argon2id", "v=19")
        costs = {name: int(value) for name, _, value in (each.partition("=") for each in parameters.split(","))}
        assert costs["m"] >= 19 * 1024
        assert costs["t"] >= 2
        assert len(salt) >= 22
        assert PASSWORD not in row
    assert len({password_hash.split("$")[4] for password_hash, _ in rows}) == 2
    assert owner.sign_in(http)


def check_answers_tell_nothing(http: httpx.Client, owner: Account) -> None:
    """Wrong passwords and unknown addresses get one answer. A taken address is refused, but not shown."""
    unknown = f"owner-{uuid.uuid4().hex}@example.com"
    answers = [
        post(http, "/auth/login", {"username": username, "password": f"{PASSWORD}!"})
        for username in (owner.email, unknown, "no address", owner.user_id)
    ]
    assert [problem(answer) for answer in answers] == [WRONG] * len(answers)
    without_ids = [{name for name in answer.headers if name != "x-trace-id"} for answer in answers]
    assert without_ids == [without_ids[0]] * len(answers)
    assert {answer.headers["content-length"] for answer in answers} == {answers[0].headers["content-length"]}
    for taken in (owner.email, owner.email.upper()):
        body = {"email": taken, "company_name": COMPANY, "password": PASSWORD}
        refused = post(http, "/auth/signup", body)
        assert problem(refused)[:2] == (409, "email_taken")
        assert owner.email not in refused.text.lower()
    wrong = {"current_password": f"{PASSWORD}!", "new_password": f"{PASSWORD} or 8"}
    assert problem(post(http, "/auth/password", wrong, owner.sign_in(http)["access_token"])) == WRONG


def check_times_tell_nothing(http: httpx.Client, owner: Account) -> None:
    """A wrong password takes as long as an unknown address."""
    unknown = f"owner-{uuid.uuid4().hex}@example.com"
    seconds: dict[str, list[float]] = {owner.email: [], unknown: []}
    for _ in range(ATTEMPTS):
        for username, taken in seconds.items():
            began = time.perf_counter()
            assert sign_in(http, username, f"{PASSWORD}!") == WRONG
            taken.append(time.perf_counter() - began)
    ratio = median(seconds[unknown]) / median(seconds[owner.email])
    assert 0.5 < ratio < 2, f"an unknown address takes {ratio:.2f} times as long as a wrong password"


def check_comparison(environment: dict[str, Any], http: httpx.Client) -> None:
    """A password counts as it is, all of it, but for the encoding of its characters."""
    composed = "Füßchen über Gräben é " + "x7" * 53
    assert len(composed) == 128
    decomposed = unicodedata.normalize("NFD", composed)
    assert len(decomposed) > 128
    with account(environment, http, decomposed) as email:
        for same in (composed, decomposed):
            assert post(http, "/auth/login", {"username": email, "password": same}).status_code == 200
        for other in (composed[:-1], f"{composed[:-1]}8", composed.lower(), f"{composed[1:]}F", f" {composed[:-1]}"):
            assert sign_in(http, email, other) == WRONG
        longest = {"email": "b@b.example", "company_name": COMPANY, "password": f"{decomposed}x"}
        assert_refused(post(http, "/auth/signup", longest), "invalid", decomposed)
        short = longest | {"password": unicodedata.normalize("NFD", "äöüäöüäöüäö")}
        assert_refused(post(http, "/auth/signup", short), "invalid", short["password"])


@contextmanager
def account(environment: dict[str, Any], http: httpx.Client, password: str) -> Iterator[str]:
    """The address of the owner of a new customer with this password."""
    email = f"owner-{uuid.uuid4().hex}@example.com"
    created = post(http, "/auth/signup", {"email": email, "company_name": COMPANY, "password": password})
    assert created.status_code == 201, created.text
    try:
        yield email
    finally:
        admin = environment["credentials"]["admin_token"]
        call(http, "DELETE", f"/customers/{created.json()['customer_id']}", admin)


def post(http: httpx.Client, path: str, body: dict[str, str], token: str | None = None) -> httpx.Response:
    """The answer to a POST; characters that UTF-8 cannot encode are escaped."""
    headers = {"content-type": "application/json"} | (bearer(token) if token else {})
    return http.post(path, content=json.dumps(body), headers=headers)


def sign_in(http: httpx.Client, username: str, password: str) -> tuple[int, str, str]:
    """The problem with which a sign-in is refused."""
    return problem(post(http, "/auth/login", {"username": username, "password": password}))


def assert_refused(answer: httpx.Response, kind: str, password: str) -> None:
    """The answer refuses the password, without showing it."""
    assert problem(answer)[:2] == (422, kind), f"{password!r} of {len(password)} characters"
    assert password not in answer.text
