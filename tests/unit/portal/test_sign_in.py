"""Sign-in, sign-out, and the session cookie."""

import base64

import httpx
import pytest
from starlette.testclient import TestClient

from optiinfra.api.common import PORTAL_CLIENT_HEADER, PORTAL_SECRET_HEADER
from optiinfra.portal.key_ring import KeyRing
from optiinfra.portal.platform import Platform
from optiinfra.portal.sessions import COOKIE, PURPOSE, Session, Sessions
from tests.unit.portal import fake


@pytest.mark.parametrize("path", ["/health", "/api/health"])
def test_health_is_public(visitor: TestClient, path: str) -> None:
    answer = visitor.get(path)
    assert (answer.status_code, answer.json()["status"]) == (200, "healthy")
    assert (answer.json()["service"], answer.json()["version"]) == ("portal", "abc1234")


def test_page_without_session_redirects_to_login_and_back(visitor: TestClient) -> None:
    redirect = visitor.get("/optimizations/opt_1")
    assert redirect.status_code == 303
    assert redirect.headers["location"] == "/login?next=/optimizations/opt_1"
    form = visitor.get(redirect.headers["location"])
    assert 'name="next" value="/optimizations/opt_1"' in form.text
    data = {"email": fake.OWNER.email, "password": fake.PASSWORD, "next": "/optimizations/opt_1"}
    assert visitor.post("/login", data=data).headers["location"] == "/optimizations/opt_1"


@pytest.mark.parametrize("path", ["/", "/audit", "/settings", "/settings/users", "/settings/keys", "/settings/account"])
def test_page_without_session_is_refused_before_the_platform_is_asked(
    visitor: TestClient, orchestrator: fake.Orchestrator, path: str
) -> None:
    redirect = visitor.get(path)
    assert (redirect.status_code, redirect.headers["location"]) == (303, f"/login?next={path}")
    assert visitor.get(path, headers={"accept": "application/json"}).status_code == 401
    assert orchestrator.calls == []


def test_login_forwards_the_address_of_the_user(visitor: TestClient, orchestrator: fake.Orchestrator) -> None:
    visitor.post("/login", data={"email": fake.OWNER.email, "password": "wrong"})
    assert orchestrator.forwarded == {PORTAL_SECRET_HEADER: fake.SECRET, PORTAL_CLIENT_HEADER: "testclient"}


def test_login_after_too_many_attempts_says_when_to_try_again(
    visitor: TestClient, orchestrator: fake.Orchestrator
) -> None:
    orchestrator.refusal = fake.problem(429, "rate_limited", "too many requests: try again in 30 s")
    answer = visitor.post("/login", data={"email": fake.OWNER.email, "password": fake.PASSWORD})
    assert answer.status_code == 429
    assert "try again in 30 s" in answer.text


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/\\evil.example", "evil"])
def test_login_never_redirects_to_another_site(visitor: TestClient, target: str) -> None:
    data = {"email": fake.OWNER.email, "password": fake.PASSWORD, "next": target}
    assert visitor.post("/login", data=data).headers["location"] == "/"


def test_login_with_wrong_password_shows_an_error_and_keeps_the_address(visitor: TestClient) -> None:
    answer = visitor.post("/login", data={"email": fake.OWNER.email, "password": "wrong"})
    assert answer.status_code == 401
    assert "Wrong e-mail address or password." in answer.text
    assert f'value="{fake.OWNER.email}"' in answer.text
    assert COOKIE not in answer.headers.get("set-cookie", "")


@pytest.mark.parametrize("entered", [{"email": "x" * 201}, {"password": "x" * 201}])
def test_login_with_an_overlong_entry_is_refused_like_a_wrong_one(
    visitor: TestClient, orchestrator: fake.Orchestrator, entered: dict[str, str]
) -> None:
    answer = visitor.post("/login", data={"email": fake.OWNER.email, "password": fake.PASSWORD} | entered)
    assert answer.status_code == 401
    assert "Wrong e-mail address or password." in answer.text
    assert orchestrator.calls == []


def test_login_with_an_empty_form_asks_for_both_fields(visitor: TestClient, orchestrator: fake.Orchestrator) -> None:
    answer = visitor.post("/login", data={"email": "", "password": ""})
    assert answer.status_code == 422
    assert "Enter your e-mail address" in answer.text
    assert orchestrator.calls == []


def test_login_while_the_platform_is_unavailable_says_so(visitor: TestClient, orchestrator: fake.Orchestrator) -> None:
    orchestrator.unavailable = True
    answer = visitor.post("/login", data={"email": fake.OWNER.email, "password": fake.PASSWORD})
    assert answer.status_code == 503
    assert "does not answer at the moment" in answer.text


def test_login_escapes_form_values(visitor: TestClient) -> None:
    answer = visitor.post("/login", data={"email": '"><script>x</script>', "password": "p"})
    assert "<script>x" not in answer.text


def test_session_cookie_is_encrypted_http_only_and_same_site(visitor: TestClient) -> None:
    answer = visitor.post("/login", data={"email": fake.OWNER.email, "password": fake.PASSWORD})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    value = cookie.split(";")[0].removeprefix(f"{COOKIE}=")
    raw = base64.urlsafe_b64decode(value + "==")
    assert b"access-1" not in raw
    assert fake.OWNER.email.encode() not in raw


def test_forged_cookie_redirects_to_login(owner: TestClient) -> None:
    sealed = owner.cookies[COOKIE]
    for forged in ("x", sealed[:-2], sealed[:20] + ("A" if sealed[20] != "A" else "B") + sealed[21:]):
        owner.cookies.clear()
        owner.cookies.set(COOKIE, forged)
        assert owner.get("/").headers.get("location") == "/login?next=/"


def test_unseal_with_another_key_is_none() -> None:
    platform = Platform(httpx.AsyncClient(base_url="http://orchestrator.test"), fake.SECRET)
    ours, theirs = (Sessions(KeyRing(PURPOSE, key * 32), platform) for key in "ab")
    session = Session(access_token="a", refresh_token="r", expires_at=0.0, identity=fake.OWNER)
    assert ours.unseal(ours.seal(session)) == session
    assert theirs.unseal(ours.seal(session)) is None


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}],
)
def test_cross_site_forms_are_refused(
    owner: TestClient, orchestrator: fake.Orchestrator, headers: dict[str, str]
) -> None:
    before = len(orchestrator.calls)
    for path in ("/login", "/recommendations/rec_1/approve", "/logout"):
        answer = owner.post(path, headers=headers)
        assert answer.status_code == 403
        assert "This form was sent from another site" in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert len(orchestrator.calls) == before


def test_tokens_are_renewed_once_before_they_expire(orchestrator: fake.Orchestrator, visitor: TestClient) -> None:
    orchestrator.expires_in = 20
    visitor.post("/login", data={"email": fake.OWNER.email, "password": fake.PASSWORD})
    old = visitor.cookies[COOKIE]
    orchestrator.expires_in = 900
    assert visitor.get("/").status_code == 200
    assert visitor.cookies[COOKIE] != old
    # A concurrent request with the old cookie must not use the refresh token again.
    visitor.cookies.clear()
    visitor.cookies.set(COOKIE, old)
    assert visitor.get("/").status_code == 200
    assert orchestrator.calls.count("POST /auth/refresh") == 1


def test_refused_renewal_redirects_to_login(orchestrator: fake.Orchestrator, visitor: TestClient) -> None:
    orchestrator.expires_in = 20
    visitor.post("/login", data={"email": fake.OWNER.email, "password": fake.PASSWORD})
    orchestrator.logins += 1
    answer = visitor.get("/")
    assert answer.headers["location"] == "/login?next=/"
    assert COOKIE not in visitor.cookies


def test_revoked_token_redirects_to_login(orchestrator: fake.Orchestrator, owner: TestClient) -> None:
    orchestrator.logins += 1
    assert owner.get("/").headers["location"] == "/login?next=/"
    assert COOKIE not in owner.cookies


def test_logout_ends_the_session_at_the_orchestrator_and_deletes_the_cookie(
    owner: TestClient, orchestrator: fake.Orchestrator
) -> None:
    assert owner.post("/logout").headers["location"] == "/login"
    assert "POST /auth/logout" in orchestrator.calls
    assert COOKIE not in owner.cookies


def test_logout_while_the_platform_is_unavailable_deletes_the_cookie(
    owner: TestClient, orchestrator: fake.Orchestrator
) -> None:
    orchestrator.unavailable = True
    answer = owner.post("/logout")
    assert answer.status_code == 503
    assert "This browser is signed out, but the session may not have ended" in answer.text
    assert COOKIE not in owner.cookies


def test_logout_of_an_ended_session_is_no_error(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    orchestrator.logins += 1
    answer = owner.post("/logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert COOKIE not in owner.cookies
