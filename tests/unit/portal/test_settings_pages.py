"""The pages of settings: cloud account, users, keys and tokens, the user's own account."""

import html
import json
import re

import pytest
from starlette.testclient import TestClient

from optiinfra.api.accounts import Role
from tests.unit.portal import fake
from tests.unit.portal.administration import AGENT_TOKEN, API_KEY, INVITATION_TOKEN, INVITED, WEAK_PASSWORD
from tests.unit.portal.conftest import SignIn

OWNERS_PAGES = ["/settings/users", "/settings/keys"]
OWNERS_FORMS = [
    "/settings/users",
    "/settings/users/user_2/remove",
    "/settings/keys/api-keys",
    "/settings/keys/api-keys/key_1/delete",
    "/settings/keys/agent-tokens",
    "/settings/keys/agent-tokens/token_1/delete",
]
NEW_PASSWORD = "four unrelated words 7"
VALID = {
    "email": "kim@acme.example",
    "role": "approver",
    "name": "billing",
    "scope": "approve",
    "expires_in_days": "30",
}
"""What an owner enters into any of the forms."""


def form_id(page: str) -> str:
    """The hidden id of a form that creates something."""
    found = re.search(r'name="form" value="([0-9a-f]{32})"', page)
    assert found, page
    return found[1]


def forms(page: str) -> set[str]:
    """Where the forms of a page lead, besides the sign-out."""
    return set(re.findall(r'<form method="post" action="([^"]+)"', page)) - {"/logout"}


def alert(page: str) -> str:
    """The error that a page shows."""
    found = re.search(r'<p class="notice" role="alert">([^<]+)</p>', page)
    assert found, page
    return html.unescape(found[1])


def test_settings_show_the_policies_to_paste_as_text(owner: TestClient) -> None:
    answer = owner.get("/settings")
    assert answer.status_code == 200
    shown = re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", answer.text, re.DOTALL)
    policies = [json.loads(html.unescape(block)) for block in shown]
    assert policies == [fake.TRUST.trust_policy, fake.TRUST.permissions_policy]
    assert "<code>ext-1</code>" in answer.text
    assert "<b>*</b>" not in answer.text


@pytest.mark.parametrize("role", ["approver", "viewer"])
def test_settings_of_others_than_owners_are_their_account(
    signed_in: SignIn, orchestrator: fake.Orchestrator, role: Role
) -> None:
    browser = signed_in(role)
    assert 'href="/settings/account"' in browser.get("/").text
    assert browser.get("/settings").headers["location"] == "/settings/account"
    page = browser.get("/settings/account").text
    assert forms(page) == {"/settings/account/password", "/settings/account/sessions/sess_2/end"}
    assert "/settings/users" not in page
    for path in OWNERS_PAGES:
        refused = browser.get(path)
        assert refused.status_code == 403
        assert f"This needs the role owner; yours is {role}" in refused.text
    for path in OWNERS_FORMS:
        assert browser.post(path, data=VALID).status_code == 403, path
        assert browser.post(path, data={}).status_code == 403, path
    assert orchestrator.administration.changes == []


def test_settings_of_an_owner_lead_to_all_pages(owner: TestClient) -> None:
    for path in ["/settings", *OWNERS_PAGES, "/settings/account"]:
        page = owner.get(path).text
        tabs = re.search(r'<nav class="tabs".*?</nav>', page, re.DOTALL)
        assert tabs
        assert re.findall(r'href="([^"]+)"', tabs[0]) == ["/settings", *OWNERS_PAGES, "/settings/account"]
        assert re.findall(r'href="([^"]+)" aria-current="page"', tabs[0]) == [path]


@pytest.mark.parametrize("path", [*OWNERS_FORMS, "/settings/account/password", "/settings/account/sessions/sess_2/end"])
def test_forms_of_visitors_and_of_other_sites_are_refused(
    visitor: TestClient, signed_in: SignIn, orchestrator: fake.Orchestrator, path: str
) -> None:
    assert visitor.post(path, data=VALID).headers["location"] == "/login?next=/"
    assert orchestrator.calls == []
    browser = signed_in("owner")
    before = list(orchestrator.calls)
    assert browser.post(path, data=VALID, headers={"origin": "https://evil.example"}).status_code == 403
    assert orchestrator.calls == before


def test_users_are_listed_with_role_and_state(owner: TestClient) -> None:
    page = owner.get("/settings/users").text
    assert 'ops@acme.example <span class="soft">(you)</span>' in page
    assert html.escape(INVITED) in page
    assert INVITED not in page
    assert "until 09 Nov 2026 09:30:00 UTC" in page
    assert forms(page) == {
        "/settings/users",
        "/settings/users/user_1/remove",
        "/settings/users/user_2/remove",
    }
    assert page.count("Withdraw invitation") == 1
    assert page.count("Remove user") == 1


def test_invitation_link_has_the_token_in_its_fragment_and_is_shown_once(
    owner: TestClient, orchestrator: fake.Orchestrator
) -> None:
    entered = {"email": " kim@acme.example ", "role": "approver", "form": form_id(owner.get("/settings/users").text)}
    answer = owner.post("/settings/users", data=entered)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert f"<code>{fake.ADDRESS}/join#{INVITATION_TOKEN}</code>" in answer.text
    assert "Send this link to kim@acme.example" in answer.text
    invited = {"email": "kim@acme.example", "role": "approver"}
    assert orchestrator.administration.changes == [("/customers/cust_1/users", invited)]
    assert INVITATION_TOKEN not in owner.get("/settings/users").text


@pytest.mark.parametrize(
    ("entered", "status", "shown"),
    [
        ({"email": "ops@acme.example", "role": "owner"}, 409, "A user of yours has this e-mail address."),
        ({"email": "<s>nobody", "role": "owner"}, 422, "E-mail address is not valid."),
        ({"email": "kim@acme.example", "role": "admin"}, 422, "Role is not valid."),
        ({}, 422, "E-mail address is not valid."),
    ],
)
def test_invitation_refused_says_why_and_keeps_what_was_entered(
    owner: TestClient, orchestrator: fake.Orchestrator, entered: dict[str, str], status: int, shown: str
) -> None:
    entered = {"form": form_id(owner.get("/settings/users").text)} | entered
    answer = owner.post("/settings/users", data=entered)
    assert (answer.status_code, alert(answer.text)) == (status, shown)
    assert f'value="{html.escape(entered.get("email", ""))}"' in answer.text
    if entered.get("role") == "owner":
        assert '<option value="owner" selected>' in answer.text
    assert orchestrator.administration.changes == []


def test_user_is_removed_and_the_last_owner_is_not(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    answer = owner.post("/settings/users/user_2/remove")
    assert (answer.status_code, answer.headers["location"]) == (303, "/settings/users")
    assert [user.user_id for user in orchestrator.administration.users] == ["user_1"]
    last = owner.post("/settings/users/user_1/remove")
    assert (last.status_code, alert(last.text)) == (
        409,
        "The last owner cannot be removed: invite another one first.",
    )
    gone = owner.post("/settings/users/user_2/remove")
    assert (gone.status_code, alert(gone.text)) == (404, "No such user.")


def test_keys_and_tokens_are_listed_with_scope_last_use_and_expiry(owner: TestClient) -> None:
    page = owner.get("/settings/keys").text
    cells = [html.unescape(cell) for cell in re.findall(r"<td[^>]*>(?:<code>)?([^<]*)(?:</code>)?</td>", page)]
    assert cells == [
        "<i>nightly report</i>",
        "Read",
        "02 Nov 2026 09:30:00 UTC",
        "never",
        "31 Jan 2027 09:30:00 UTC",
        "token_1",
        "02 Nov 2026 09:30:00 UTC",
        "02 Nov 2026 09:30:00 UTC",
        "02 Nov 2027 09:30:00 UTC",
    ]
    assert "<i>nightly" not in page


def test_api_key_is_created_and_shown_once(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    entered = {"name": "<u>billing", "scope": "approve", "expires_in_days": "30"}
    entered["form"] = form_id(owner.get("/settings/keys").text)
    answer = owner.post("/settings/keys/api-keys", data=entered)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert f"<code>{API_KEY}</code>" in answer.text
    assert "API key &lt;u&gt;billing" in answer.text
    body = {"name": "<u>billing", "scope": "approve", "expires_in_days": 30}
    assert orchestrator.administration.changes == [("/customers/cust_1/api-keys", body)]
    assert API_KEY not in owner.get("/settings/keys").text


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"name": ""}, "Name is missing."),
        ({"name": "x" * 201}, "Name may have at most 200 characters."),
        ({"scope": "own"}, "Scope is not valid."),
        ({"expires_in_days": "366"}, "Days until it expires is not valid."),
        ({"expires_in_days": "soon"}, "Days until it expires is not valid."),
    ],
)
def test_api_key_refused_says_why_and_keeps_what_was_entered(
    owner: TestClient, orchestrator: fake.Orchestrator, changed: dict[str, str], shown: str
) -> None:
    answer = owner.post("/settings/keys/api-keys", data=VALID | changed)
    assert (answer.status_code, alert(answer.text)) == (422, shown)
    assert f'value="{(VALID | changed)["name"]}"' in answer.text
    assert orchestrator.administration.changes == []


def test_agent_token_is_created_and_shown_once_with_its_command(
    owner: TestClient, orchestrator: fake.Orchestrator
) -> None:
    entered = {"form": form_id(owner.get("/settings/keys").text)}
    answer = owner.post("/settings/keys/agent-tokens", data=entered)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert f"<code>{AGENT_TOKEN}</code>" in answer.text
    assert f"<code>run &lt;{AGENT_TOKEN}&gt;</code>" in answer.text
    assert orchestrator.administration.changes == [("/customers/cust_1/agent-install-command", None)]
    assert AGENT_TOKEN not in owner.get("/settings/keys").text


@pytest.mark.parametrize("path", ["/settings/users", "/settings/keys/api-keys", "/settings/keys/agent-tokens"])
def test_form_that_is_sent_again_creates_nothing_more(
    owner: TestClient, orchestrator: fake.Orchestrator, path: str
) -> None:
    entered = VALID | {"form": form_id(owner.get("/settings/keys").text)}
    assert owner.post(path, data=entered).status_code == 200
    again = owner.post(path, data=entered)
    assert (again.status_code, alert(again.text)[:30]) == (409, "This form was sent before. Wha")
    assert len(orchestrator.administration.changes) == 1
    assert owner.post(path, data=VALID | {"form": "e\N{ACUTE ACCENT}"}).status_code == 422


@pytest.mark.parametrize(("kind", "item"), [("api-keys", "key_1"), ("agent-tokens", "token_1")])
def test_keys_and_tokens_are_deleted(owner: TestClient, orchestrator: fake.Orchestrator, kind: str, item: str) -> None:
    path = f"/settings/keys/{kind}/{item}/delete"
    assert path in forms(owner.get("/settings/keys").text)
    answer = owner.post(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/settings/keys")
    assert orchestrator.administration.changes == [(f"/customers/cust_1/{kind}/{item}", None)]
    gone = owner.post(path)
    assert (gone.status_code, alert(gone.text)) == (404, f"No such {item.partition('_')[0]}.")


def test_account_marks_the_current_session_and_ends_others(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    page = owner.get("/settings/account").text
    assert page.count("this session") == 1
    assert page.count("End session") == 1
    answer = owner.post("/settings/account/sessions/sess_2/end")
    assert (answer.status_code, answer.headers["location"]) == (303, "/settings/account")
    assert [session.session_id for session in orchestrator.administration.sessions] == ["sess_1"]
    gone = owner.post("/settings/account/sessions/sess_2/end")
    assert (gone.status_code, alert(gone.text)) == (404, "No such session.")


def test_password_is_changed_and_other_sessions_end(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    entered = {"current": fake.PASSWORD, "password": NEW_PASSWORD, "repeated": NEW_PASSWORD}
    answer = owner.post("/settings/account/password", data=entered)
    assert answer.status_code == 200
    assert "The password is changed. Your other sessions have ended." in answer.text
    assert "End session" not in answer.text
    assert orchestrator.administration.password == NEW_PASSWORD


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"current": "not my password"}, "The current password is wrong."),
        ({"current": ""}, "Current password is missing."),
        ({"repeated": "another one"}, "The two new passwords are not the same."),
        ({"password": "short", "repeated": "short"}, "New password needs at least 12 characters."),
        ({"password": WEAK_PASSWORD, "repeated": WEAK_PASSWORD}, "The password is too common: choose another one."),
    ],
)
def test_password_refused_says_why(
    owner: TestClient, orchestrator: fake.Orchestrator, changed: dict[str, str], shown: str
) -> None:
    entered = {"current": fake.PASSWORD, "password": NEW_PASSWORD, "repeated": NEW_PASSWORD} | changed
    answer = owner.post("/settings/account/password", data=entered)
    assert (answer.status_code, alert(answer.text)) == (422, shown)
    assert all(value not in answer.text for value in entered.values() if value)
    assert orchestrator.administration.password == fake.PASSWORD


def test_password_change_of_an_ended_session_leads_to_the_sign_in(
    owner: TestClient, orchestrator: fake.Orchestrator
) -> None:
    orchestrator.logins += 1
    entered = {"current": fake.PASSWORD, "password": NEW_PASSWORD, "repeated": NEW_PASSWORD}
    assert owner.post("/settings/account/password", data=entered).headers["location"] == "/login?next=/"


@pytest.mark.parametrize("path", ["/settings", *OWNERS_PAGES, "/settings/account"])
def test_settings_are_not_reloaded_while_somebody_enters_something(owner: TestClient, path: str) -> None:
    page = owner.get(path).text
    assert "http-equiv" not in page
    assert "<script" not in page
    assert 'http-equiv="refresh"' in owner.get("/").text
