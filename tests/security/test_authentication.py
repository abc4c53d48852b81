"""Every route needs a credential that is valid, and of a kind and role that may call it."""

import re
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jwt
import pytest

from testbed.waiting import stretched
from tests.helpers.callers import all_callers, bearer, problem
from tests.helpers.customers import without_estate
from tests.helpers.routes import who_may
from tests.helpers.tenants import credentials_of

pytestmark = [pytest.mark.security, pytest.mark.slow]

UNKNOWN = "0" * 24
UNREADABLE = b"{"
"""A body that no route can read: the credential is checked before it is parsed."""
WRONG = b'{"nothing": ["that", "any", "route", "takes"]}'
BY_BODY = {"/agent-runtime/connect", "/auth/accept-invitation"}
"""Routes whose credential is in the body."""


def bad_credentials(user: str, signing_key: str) -> Iterator[dict[str, str]]:
    """Headers of twenty callers without a valid credential."""
    claims = jwt.decode(user, options={"verify_signature": False})
    header, payload, signature = user.split(".")
    kid = jwt.get_unverified_header(user)["kid"]

    def signed(key: str = signing_key, algorithm: str = "HS256", **changes: Any) -> str:
        kept = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode(kept, key, algorithm=algorithm, headers={"kid": kid})

    yield {}
    yield {"Authorization": ""}
    yield {"Authorization": user}
    yield {"Authorization": "Bearer"}
    yield {"Authorization": "Basic YTpi"}
    yield {"Authorization": f"Digest {user}"}
    yield {"Cookie": f"optiinfra_session={user}"}
    yield {"Sec-WebSocket-Protocol": f"optiinfra.v1, bearer.{user}"}
    tokens = [
        "not-a-token",
        "a.b.c",
        f"{header}.{payload}.",
        f"{header}.{payload[:-4]}AAAA.{signature}",
        f"agtok_{uuid.uuid4().hex}",
        f"agsec_{uuid.uuid4().hex}",
        f"apikey_{uuid.uuid4().hex}",
        signed(exp=int(time.time()) - 1),
        signed(key="another key of the same length " * 2),
        signed(key="", algorithm="none"),
        signed(aud="another"),
        signed(sid="session_" + UNKNOWN),
        signed(sub=None),
    ]
    yield from map(bearer, tokens)


def address(path: str) -> str:
    """The path with ids that nothing has."""
    return re.sub(r"\{(\w+)_id\}", rf"\1_{UNKNOWN}", path)


def refused(http: httpx.Client, method: str, path: str, headers: dict[str, str], status: int) -> str | None:
    """None if the call is refused with that status, before its path, parameters and body are looked at."""
    for content in (UNREADABLE, WRONG) if method in ("POST", "PUT", "PATCH") else (b"",):
        answer = http.request(method, path, headers=headers | {"Content-Type": "application/json"}, content=content)
        if problem(answer)[0] != status:
            break
    else:
        return None
    return f"{method} {path} with {headers} answered {answer.status_code} instead of {status}: {answer.text}"


def check_credentials(http: httpx.Client, routes: list[tuple[str, str]], bad: list[dict[str, str]]) -> list[str]:
    """What was not refused of all routes with all bad credentials."""
    calls = [(method, path, headers) for method, path in routes for headers in bad]
    with ThreadPoolExecutor(max_workers=8) as pool:
        results = pool.map(lambda call: refused(http, call[0], address(call[1]), call[2], 401), calls)
        return [result for result in results if result]


def check_roles(http: httpx.Client, tokens: dict[str, str]) -> list[str]:
    """What was not refused of all routes with credentials that lack the right."""
    calls = [
        (*route.split(" "), kind) for route, allowed in who_may().items() for kind in tokens if kind not in allowed
    ]
    with ThreadPoolExecutor(max_workers=8) as pool:
        results = pool.map(lambda call: refused(http, call[0], address(call[1]), bearer(tokens[call[2]]), 403), calls)
        return [result for result in results if result]


def check_allowed(http: httpx.Client, tokens: dict[str, str]) -> list[str]:
    """Routes that refuse a kind of caller that may call them. Those with ids answer 404: nothing has the ids."""
    wrongly = []
    for route, allowed in who_may().items():
        method, path = route.split(" ")
        if "_id}" in path:
            for kind in sorted(allowed & tokens.keys()):
                answer = http.request(method, address(path), headers=bearer(tokens[kind]), params={"wait": "0"})
                if answer.status_code in (401, 403):
                    wrongly.append(f"{route} refuses {kind}: {answer.text}")
    return wrongly


def test_every_route_refuses_bad_credentials_and_callers_without_the_right(environment: dict[str, Any]) -> None:
    url, secrets = environment["urls"]["orchestrator"], environment["credentials"]
    with (
        without_estate(environment) as customer,
        all_callers(environment) as callers,
        httpx.Client(base_url=url, timeout=stretched(15)) as http,
    ):
        document = http.get("/openapi.json").json()["paths"]
        public = {path for path, each in document.items() if not all("security" in one for one in each.values())}
        routes = [(method.upper(), path) for path, each in document.items() if path not in public for method in each]
        assert {f"{method} {path}" for method, path in routes} == who_may().keys()
        tokens = credentials_of(customer)
        tokens |= {kind: callers[kind].token or "" for kind in ("agent", "enrolment", "admin")}
        bad = list(bad_credentials(tokens["owner"], secrets["token_signing_key"]))
        assert len(bad) >= 20
        for path in ("/nothing", "/customers", "/admin", "/docs"):
            assert problem(http.get(path))[0] == 401, f"{path} shows whether it exists"
        assert check_credentials(http, routes, bad) == []
        assert check_roles(http, tokens) == []
        assert check_allowed(http, tokens) == []
        assert public == {
            "/health",
            "/ready",
            "/metrics",
            "/auth/signup",
            "/auth/login",
            "/auth/refresh",
            *BY_BODY,
        }
