"""The page on which somebody who was invited sets a password."""

import html
import re

import pytest
from starlette.testclient import TestClient

from optiinfra.portal.sessions import COOKIE
from tests.unit.portal import fake
from tests.unit.portal.administration import INVITATION_TOKEN, INVITED, WEAK_PASSWORD

PASSWORD = "four unrelated words 7"


def form(**changed: str) -> dict[str, str]:
    """What somebody enters."""
    return {"token": INVITATION_TOKEN, "password": PASSWORD, "repeated": PASSWORD} | changed


def test_join_page_is_public_and_has_a_field_for_the_code(visitor: TestClient) -> None:
    answer = visitor.get("/join")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert re.search(r'<input id="token" name="token" required [^>]*value=""', answer.text)
    assert '<form method="post" action="/join">' in answer.text
    assert visitor.get("/static/join.js").status_code == 200


def test_join_leads_to_the_sign_in_form_with_the_address_and_no_secret_in_a_url(
    visitor: TestClient, orchestrator: fake.Orchestrator
) -> None:
    answer = visitor.post("/join", data=form())
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert orchestrator.administration.accepted == [PASSWORD]
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "lee" not in cookie
    page = visitor.get("/login").text
    assert f'value="{html.escape(INVITED)}"' in page
    assert "You have joined." in page
    assert "acme.example" not in visitor.get("/login").text, "it is shown once"


def test_join_in_a_browser_of_somebody_else_shows_the_sign_in_form(owner: TestClient) -> None:
    owner.post("/join", data=form())
    assert "You have joined." in owner.get("/login").text
    assert COOKIE in owner.cookies
    assert owner.get("/login").headers["location"] == "/"


@pytest.mark.parametrize("pasted", [f" {INVITATION_TOKEN} ", f"https://portal.example/join#{INVITATION_TOKEN}"])
def test_join_accepts_a_pasted_code_or_link(visitor: TestClient, orchestrator: fake.Orchestrator, pasted: str) -> None:
    assert visitor.post("/join", data=form(token=pasted)).status_code == 303
    assert orchestrator.administration.accepted == [PASSWORD]


@pytest.mark.parametrize(
    ("changed", "status", "shown"),
    [
        ({"token": "invite_used"}, 401, "This invitation is unknown, used, replaced or expired."),
        ({"token": ""}, 422, "Invitation code is missing."),
        ({"token": "x" * 300}, 422, "Invitation code may have at most 200 characters."),
        ({"repeated": "another one"}, 422, "The two new passwords are not the same."),
        ({"password": "short", "repeated": "short"}, 422, "Password needs at least 12 characters."),
        ({"password": "nul\0" * 4, "repeated": "nul\0" * 4}, 422, "Password is not valid."),
        (
            {"password": WEAK_PASSWORD, "repeated": WEAK_PASSWORD},
            422,
            "The password is too common: choose another one.",
        ),
    ],
)
def test_join_refused_says_why_and_keeps_the_code_but_no_password(
    visitor: TestClient, orchestrator: fake.Orchestrator, changed: dict[str, str], status: int, shown: str
) -> None:
    answer = visitor.post("/join", data=form(**changed))
    assert answer.status_code == status
    assert f'<p class="notice" role="alert">{shown}</p>' in answer.text
    assert f'value="{form(**changed)["token"]}"' in answer.text
    assert form(**changed)["password"] not in answer.text
    assert orchestrator.administration.accepted == []


def test_join_while_the_platform_is_unavailable_keeps_the_code(
    visitor: TestClient, orchestrator: fake.Orchestrator
) -> None:
    orchestrator.unavailable = True
    answer = visitor.post("/join", data=form())
    assert answer.status_code == 503
    assert "does not answer at the moment" in answer.text
    assert f'value="{INVITATION_TOKEN}"' in answer.text


def test_join_escapes_the_code_that_it_shows_again(visitor: TestClient) -> None:
    assert "<script>x" not in visitor.post("/join", data=form(token='"><script>x</script>')).text


def test_join_from_another_site_is_refused(visitor: TestClient, orchestrator: fake.Orchestrator) -> None:
    answer = visitor.post("/join", data=form(), headers={"origin": "https://evil.example"})
    assert answer.status_code == 403
    assert orchestrator.calls == []
