"""Users of a customer: invitations, roles, and the last owner."""

import hashlib
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from testbed.waiting import stretched
from tests.helpers.accounts import PASSWORD, Account, signed_up
from tests.helpers.callers import bearer, call, problem
from tests.helpers.database import execute, update_one
from tests.helpers.users import invited, joined

REFUSED = (401, "invitation_refused")


@pytest.fixture
def owner(environment: dict[str, Any]) -> Iterator[Account]:
    with signed_up(environment) as owner:
        yield owner


@pytest.fixture
def token(http: httpx.Client, owner: Account) -> str:
    return str(owner.sign_in(http)["access_token"])


def accept(http: httpx.Client, token: str, password: str = PASSWORD) -> httpx.Response:
    return http.post("/auth/accept-invitation", json={"token": token, "password": password})


def users_of(http: httpx.Client, owner: Account, token: str) -> dict[str, dict[str, Any]]:
    listed = call(http, "GET", f"/customers/{owner.customer_id}/users", token)
    return {user["user_id"]: user for user in listed}


def test_invitation_is_stored_hashed_and_accepted_once_with_its_role(
    environment: dict[str, Any], http: httpx.Client, owner: Account, token: str
) -> None:
    email = f"New.User-{uuid.uuid4().hex}@example.com"
    invitation = invited(http, owner, "approver", email)
    assert set(invitation) == {"user_id", "email", "role", "invitation_token", "expires_at"}
    assert (invitation["email"], invitation["role"]) == (email.lower(), "approver")
    left = datetime.fromisoformat(invitation["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=7) - timedelta(seconds=stretched(20)) < left <= timedelta(days=7)
    ((row,),) = execute(
        environment, "SELECT row_to_json(i)::text FROM invitations AS i WHERE id = %s", invitation["user_id"]
    )
    assert hashlib.sha256(invitation["invitation_token"].encode()).hexdigest() in row
    assert invitation["invitation_token"] not in row
    listed = users_of(http, owner, token)[invitation["user_id"]]
    assert (listed["status"], listed["expires_at"]) == ("invited", invitation["expires_at"])

    accepted = accept(http, invitation["invitation_token"])
    assert accepted.status_code == 201
    user = {"user_id": invitation["user_id"], "email": email.lower(), "role": "approver"}
    assert accepted.json() == user | {"customer_id": owner.customer_id}
    assert problem(accept(http, invitation["invitation_token"]))[:2] == REFUSED
    listed = users_of(http, owner, token)[invitation["user_id"]]
    assert (listed["status"], listed["role"], listed["expires_at"]) == ("active", "approver", None)
    signed_in = Account(owner.customer_id, user["user_id"], email).sign_in(http)
    assert call(http, "GET", "/auth/me", signed_in["access_token"])["role"] == "approver"


def test_invitation_that_expired_or_was_replaced_or_withdrawn_is_refused(
    environment: dict[str, Any], http: httpx.Client, owner: Account, token: str
) -> None:
    expired, withdrawn, replaced = (invited(http, owner, "viewer") for _ in range(3))
    update_one(environment, "UPDATE invitations SET expires_at = now() WHERE id = %s", expired["user_id"])
    itself = f"/customers/{owner.customer_id}/users/{withdrawn['user_id']}"
    assert http.delete(itself, headers=bearer(token)).status_code == 204
    assert problem(http.delete(itself, headers=bearer(token)))[0] == 404
    newer = invited(http, owner, "approver", replaced["email"])
    assert newer["user_id"] == replaced["user_id"]
    for invitation in (expired, withdrawn, replaced):
        assert problem(accept(http, invitation["invitation_token"]))[:2] == REFUSED
    assert problem(accept(http, "invite_unknown"))[:2] == REFUSED
    assert set(users_of(http, owner, token)) == {owner.user_id, newer["user_id"]}
    assert accept(http, newer["invitation_token"]).json()["role"] == "approver"


def test_invitation_survives_a_weak_password_and_is_accepted_by_one_of_many(http: httpx.Client, owner: Account) -> None:
    invitation = invited(http, owner, "viewer")
    local_part = invitation["email"].partition("@")[0]
    for weak in ("short", "password1234", f"{local_part}!", "Accounts-Accounts"):
        assert accept(http, invitation["invitation_token"], weak[:128]).status_code == 422
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: accept(http, invitation["invitation_token"]), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [401] * 7


def test_invitation_of_an_address_that_has_an_account_is_a_conflict_for_the_invited_only(
    environment: dict[str, Any], http: httpx.Client, owner: Account, token: str
) -> None:
    with signed_up(environment) as other:
        invitation = invited(http, owner, "viewer", other.email.upper())
        refused = accept(http, invitation["invitation_token"])
        assert problem(refused)[:2] == (409, "email_taken")
        assert other.email not in refused.text
        assert users_of(http, owner, token)[invitation["user_id"]]["status"] == "invited"
    body = {"email": owner.email, "role": "viewer"}
    own = http.post(f"/customers/{owner.customer_id}/users", headers=bearer(token), json=body)
    assert problem(own)[:2] == (409, "already_a_user")


def test_last_owner_stays_also_when_two_owners_remove_each_other_at_once(
    http: httpx.Client, owner: Account, token: str
) -> None:
    users = f"/customers/{owner.customer_id}/users"
    joined(http, owner, "approver")
    assert problem(http.delete(f"{users}/{owner.user_id}", headers=bearer(token)))[:2] == (409, "last_owner")
    second = joined(http, owner, "owner")
    credentials = {owner.user_id: token, second.user_id: second.sign_in(http)["access_token"]}
    (one, first_token), (another, second_token) = credentials.items()
    with ThreadPoolExecutor(2) as threads:
        removals = [
            threads.submit(http.delete, f"{users}/{another}", headers=bearer(first_token)),
            threads.submit(http.delete, f"{users}/{one}", headers=bearer(second_token)),
        ]
    statuses = sorted(removal.result().status_code for removal in removals)
    assert statuses in ([204, 401], [204, 409]), "one of them is left, and owns the customer"


@pytest.mark.parametrize("role", ["approver", "viewer"])
def test_users_who_are_no_owners_manage_no_users(http: httpx.Client, owner: Account, token: str, role: str) -> None:
    users, body = f"/customers/{owner.customer_id}/users", {"email": "a@b.example", "role": "owner"}
    theirs = joined(http, owner, role).sign_in(http)["access_token"]
    before = users_of(http, owner, token)
    for method, path, content in (
        ("GET", users, None),
        ("POST", users, body),
        ("DELETE", f"{users}/{owner.user_id}", None),
    ):
        answer = http.request(method, path, headers=bearer(theirs), json=content)
        assert problem(answer)[:2] == (403, "forbidden"), f"{method} {path}"
    assert users_of(http, owner, token) == before


def test_users_of_another_customer_are_not_found(
    environment: dict[str, Any], http: httpx.Client, owner: Account, token: str
) -> None:
    with signed_up(environment) as stranger:
        other_token = stranger.sign_in(http)["access_token"]
        colleague, invitation = joined(http, owner, "viewer"), invited(http, owner, "viewer")
        for user_id in (colleague.user_id, invitation["user_id"], "user_000000000000000000000000"):
            for customer_id in (owner.customer_id, stranger.customer_id):
                answer = http.delete(f"/customers/{customer_id}/users/{user_id}", headers=bearer(other_token))
                assert problem(answer)[0] == 404, f"{user_id} of {customer_id}"
        assert set(users_of(http, owner, token)) == {owner.user_id, colleague.user_id, invitation["user_id"]}
        assert set(users_of(http, stranger, other_token)) == {stranger.user_id}
