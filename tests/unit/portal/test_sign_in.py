"""Signing in and out, and what the session's cookie is good for."""

import base64

import httpx
import pytest
from starlette.testclient import TestClient

from optiinfra.portal.platform import Platform
from optiinfra.portal.sessions import COOKIE, Session, Sessions
from tests.unit.portal import fake


@pytest.mark.parametrize("path", ["/health", "/api/health"])
def test_health_needs_no_sign_in(visitor: TestClient, path: str) -> None:
    answer = visitor.get(path)
    assert (answer.status_code, answer.json()["status"]) == (200, "healthy")
    assert (answer.json()["service"], answer.json()["version"]) == ("portal", "abc1234")


def test_a_page_leads_to_the_form_and_the_form_back_to_the_page(visitor: TestClient) -> None:
    turned_away = visitor.get("/optimizations/opt_1")
    assert turned_away.status_code == 303
    assert turned_away.headers["location"] == "/login?next=/optimizations/opt_1"
    form = visitor.get(turned_away.headers["location"])
    assert 'name="next" value="/optimizations/opt_1"' in form.text
    data = {"email": fake.OWNER.email, "password": fake.PASSWORD, "next": "/optimizations/opt_1"}
    assert visitor.post("/login", data=data).headers["location"] == "/optimizations/opt_1"


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/\\evil.example", "evil"])
def test_signing_in_leads_to_no_other_site(visitor: TestClient, target: str) -> None:
    data = {"email": fake.OWNER.email, "password": fake.PASSWORD, "next": target}
    assert visitor.post("/login", data=data).headers["location"] == "/"


def test_a_wrong_password_is_said_and_the_address_kept(visitor: TestClient) -> None:
    answer = visitor.post("/login", data={"email": fake.OWNER.email, "password": "wrong"})
    assert answer.status_code == 401
    assert "Wrong e-mail address or password." in answer.text
    assert f'value="{fake.OWNER.email}"' in answer.text
    assert COOKIE not in answer.headers.get("set-cookie", "")


def test_an_empty_form_is_asked_to_be_filled(visitor: TestClient, orchestrator: fake.Orchestrator) -> None:
    answer = visitor.post("/login", data={"email": "", "password": ""})
    assert answer.status_code == 422
    assert "Enter your e-mail address" in answer.text
    assert orchestrator.calls == []


def test_an_absent_platform_is_said_on_the_form(visitor: TestClient, orchestrator: fake.Orchestrator) -> None:
    orchestrator.away = True
    answer = visitor.post("/login", data={"email": fake.OWNER.email, "password": fake.PASSWORD})
    assert answer.status_code == 503
    assert "does not answer at the moment" in answer.text


def test_what_is_typed_is_escaped(visitor: TestClient) -> None:
    answer = visitor.post("/login", data={"email": '"><script>x</script>', "password": "p"})
    assert "<script>x" not in answer.text


def test_the_cookie_is_sealed_and_out_of_reach(visitor: TestClient) -> None:
    answer = visitor.post("/login", data={"email": fake.OWNER.email, "password": fake.PASSWORD})
    told = answer.headers["set-cookie"]
    assert "HttpOnly" in told
    assert "SameSite=strict" in told
    value = told.split(";")[0].removeprefix(f"{COOKIE}=")
    raw = base64.urlsafe_b64decode(value + "==")
    assert b"access-1" not in raw
    assert fake.OWNER.email.encode() not in raw


def test_a_forged_cookie_is_no_session(owner: TestClient) -> None:
    sealed = owner.cookies[COOKIE]
    for forged in ("x", sealed[:-2], sealed[:20] + ("A" if sealed[20] != "A" else "B") + sealed[21:]):
        owner.cookies.clear()
        owner.cookies.set(COOKIE, forged)
        assert owner.get("/").headers.get("location") == "/login?next=/"


def test_another_key_opens_nothing() -> None:
    platform = Platform(httpx.AsyncClient(base_url="http://orchestrator.test"))
    ours, theirs = Sessions("a" * 32, platform), Sessions("b" * 32, platform)
    session = Session(access_token="a", refresh_token="r", expires_at=0.0, identity=fake.OWNER)
    assert ours.opened(ours.seal(session)) == session
    assert theirs.opened(ours.seal(session)) is None


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}],
)
def test_forms_of_other_sites_are_refused(
    owner: TestClient, orchestrator: fake.Orchestrator, headers: dict[str, str]
) -> None:
    before = len(orchestrator.calls)
    for path in ("/login", "/recommendations/rec_1/approve", "/logout"):
        answer = owner.post(path, headers=headers)
        assert answer.status_code == 403
        assert "This form was sent from another site" in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert len(orchestrator.calls) == before


def test_tokens_are_renewed_before_they_expire(orchestrator: fake.Orchestrator, visitor: TestClient) -> None:
    orchestrator.expires_in = 20
    visitor.post("/login", data={"email": fake.OWNER.email, "password": fake.PASSWORD})
    old = visitor.cookies[COOKIE]
    orchestrator.expires_in = 900
    assert visitor.get("/").status_code == 200
    assert visitor.cookies[COOKIE] != old
    # Another request that was under way with the old cookie must not use the refresh token a second time.
    visitor.cookies.clear()
    visitor.cookies.set(COOKIE, old)
    assert visitor.get("/").status_code == 200
    assert orchestrator.calls.count("POST /auth/refresh") == 1


def test_a_refused_renewal_leads_to_the_form(orchestrator: fake.Orchestrator, visitor: TestClient) -> None:
    orchestrator.expires_in = 20
    visitor.post("/login", data={"email": fake.OWNER.email, "password": fake.PASSWORD})
    orchestrator.signings += 1
    answer = visitor.get("/")
    assert answer.headers["location"] == "/login?next=/"
    assert COOKIE not in visitor.cookies


def test_tokens_the_platform_no_longer_takes_lead_to_the_form(
    orchestrator: fake.Orchestrator, owner: TestClient
) -> None:
    orchestrator.signings += 1
    assert owner.get("/").headers["location"] == "/login?next=/"
    assert COOKIE not in owner.cookies


def test_signing_out_ends_it_on_both_sides(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    assert owner.post("/logout").headers["location"] == "/login"
    assert "POST /auth/logout" in orchestrator.calls
    assert COOKIE not in owner.cookies


def test_signing_out_while_the_platform_is_away_ends_it_here(
    owner: TestClient, orchestrator: fake.Orchestrator
) -> None:
    orchestrator.away = True
    answer = owner.post("/logout")
    assert answer.status_code == 503
    assert "You are signed out of this browser, but perhaps not of others" in answer.text
    assert COOKIE not in owner.cookies


def test_signing_out_of_what_has_ended_elsewhere_is_no_error(
    owner: TestClient, orchestrator: fake.Orchestrator
) -> None:
    orchestrator.signings += 1
    answer = owner.post("/logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert COOKIE not in owner.cookies
