"""Secrets at rest, in logs and in the answers of the services, and keys that are replaced."""

import json
import os
import secrets
import stat
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.helpers.accounts import PASSWORD, Account, signed_up
from tests.helpers.callers import bearer, call
from tests.helpers.private_platform import PrivatePlatform, private_platform_over
from tests.helpers.service_logs import logs_of
from tests.helpers.session_tokens import assert_active, refreshed
from tests.helpers.stores import Stores

pytestmark = [
    pytest.mark.security,
    pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection"),
]


COOKIE = "optiinfra_session"


def use_every_secret(environment: dict[str, Any], owner: Account, http: httpx.Client) -> Iterator[str]:
    """Have every kind of secret issued and used, rightly and wrongly; yields each."""
    admin = environment["credentials"]["admin_token"]
    wrong = f"wrong {uuid.uuid4().hex}"
    yield from (owner.password, wrong)
    http.post("/auth/login", json={"username": owner.email, "password": wrong})
    tokens = owner.sign_in(http)
    refreshed = call(http, "POST", "/auth/refresh", body={"refresh_token": tokens["refresh_token"]})
    yield from (each[name] for each in (tokens, refreshed) for name in ("access_token", "refresh_token"))
    token, customer = refreshed["access_token"], f"/customers/{owner.customer_id}"
    installed = call(http, "POST", f"{customer}/agent-install-command", token)
    yield installed["agent_token"]
    connect = {"customer_id": owner.customer_id, "hostname": "h", "version": "1"}
    for agent_token in (installed["agent_token"], installed["agent_token"][:-1] + "x"):
        http.post("/agent-runtime/connect", json=connect | {"agent_token": agent_token})
        http.get("/agent-runtime/runtime_unknown/commands", headers=bearer(agent_token))
    key = call(http, "POST", f"{customer}/api-keys", token, {"name": "ci", "scope": "read"})["api_key"]
    yield key
    http.get(customer, headers=bearer(key))
    invite = {"email": f"invited-{uuid.uuid4().hex}@example.com", "role": "viewer"}
    yield call(http, "POST", f"{customer}/users", token, invite)["invitation_token"]
    # Invalid and forged requests with secrets in every place where one may stand.
    http.post("/auth/login", json={"username": owner.email, "password": [owner.password]})
    http.post(f"/auth/login?password={wrong}", json={"password": wrong, "token": token})
    http.get(f"{customer}/{key}", headers=bearer(token))
    http.get("/customers/" + token, headers=bearer(admin))


def check_portal(environment: dict[str, Any], owner: Account) -> Iterator[str]:
    """Sign in to the portal; yields the session cookie's value."""
    with httpx.Client(base_url=environment["urls"]["portal"], timeout=30) as browser:
        form = {"email": owner.email, "password": PASSWORD}
        assert browser.post("/login", data=form).status_code == 303
        yield from browser.cookies.values()
        assert browser.get("/").status_code == 200
        assert browser.post("/logout").status_code == 303


@pytest.fixture(scope="module")
def platform(environment: dict[str, Any]) -> Iterator[PrivatePlatform]:
    """Services whose keys are replaced."""
    with private_platform_over(environment, f"secrets-{os.getpid()}", proxied=(), agents=False) as started:
        yield started


def check_rotation(platform: PrivatePlatform) -> None:
    """Replaced keys are accepted while they are listed as previous ones, and sign and encrypt no more."""
    urls, previous = platform.document["urls"], platform.document["credentials"]
    new = {name: secrets.token_hex(24) for name in ("TOKEN_SIGNING_KEY", "PORTAL_SESSION_KEY")}
    listed = {f"PREVIOUS_{name}S": json.dumps([previous[name.lower()]]) for name in new}
    with (
        signed_up(platform.document) as owner,
        httpx.Client(base_url=urls["orchestrator"], timeout=30) as http,
        httpx.Client(base_url=urls["portal"], timeout=30) as portal,
    ):
        old = owner.sign_in(http), portal_cookie(portal, owner)
        assert_key(http, portal, old, accepted=True)
        platform.restart(new | listed)
        assert_key(http, portal, old, accepted=True)
        renewed = owner.sign_in(http), portal_cookie(portal, owner)
        platform.restart(new)
        assert_key(http, portal, old, accepted=False)
        assert_key(http, portal, renewed, accepted=True)
        # The key of an access token protects nothing else: the session goes on with its refresh token.
        assert_active(http, refreshed(http, old[0]))


def portal_cookie(portal: httpx.Client, owner: Account) -> str:
    """The cookie of a new session in the portal."""
    portal.cookies.clear()
    assert portal.post("/login", data={"email": owner.email, "password": PASSWORD}).status_code == 303
    cookie = portal.cookies[COOKIE]
    portal.cookies.clear()
    return cookie


def assert_key(http: httpx.Client, portal: httpx.Client, issued: tuple[dict[str, Any], str], *, accepted: bool) -> None:
    """Whether the keys of an access token and of a cookie of the portal are accepted."""
    tokens, cookie = issued
    assert http.get("/auth/me", headers=bearer(tokens["access_token"])).status_code == (200 if accepted else 401)
    page = portal.get("/", headers={"cookie": f"{COOKIE}={cookie}", "accept": "text/html"})
    assert (page.status_code, page.headers.get("location")) == ((200, None) if accepted else (303, "/login?next=/"))


@pytest.mark.slow
def test_no_store_log_or_metric_holds_a_secret_and_keys_can_be_replaced(
    environment: dict[str, Any], platform: PrivatePlatform
) -> None:
    check_rotation(platform)
    urls, credentials = environment["urls"], environment["credentials"]
    with (
        signed_up(environment) as owner,
        httpx.Client(base_url=urls["orchestrator"], timeout=30) as http,
        closing(Stores(environment)) as stores,
    ):
        issued = [*use_every_secret(environment, owner, http), *check_portal(environment, owner)]
        assert len(issued) == 10
        assert "postgresql public.users" in stores.count_mentions([owner.email])
        assert stores.count_mentions(issued) == {}
    never_shown = {*issued, *(value for name, value in credentials.items() if name != "clickhouse_user")}
    logs = logs_of(environment)
    assert {"orchestrator", "portal", "cost-agent", "postgresql"} <= logs.keys()
    for log in logs.values():
        text = log.read_text(errors="replace")
        assert [secret for secret in never_shown if secret in text] == [], f"{log.name} holds a secret"
        assert stat.S_IMODE(log.stat().st_mode) == 0o600, f"{log.name} can be read by others"
    for service in ("orchestrator", "portal", "cost-agent"):
        public = [
            httpx.get(f"{urls[service]}{path}", timeout=30).text for path in ("/metrics", "/openapi.json", "/ready")
        ]
        assert [secret for secret in never_shown if any(secret in text for text in public)] == []
