"""Wrong requests are answered with problem details that say what would be right; 401 comes before other errors."""

import socket
import time
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import jwt
import pytest

from testbed.waiting import stretched
from tests.helpers.callers import Caller, all_callers, bearer, unused_address
from tests.helpers.database import update_one
from tests.helpers.runtime import deployment

MALFORMED_IDS = {
    "NUL": "%00",
    "NUL within": "cust_%00abc",
    "slashes": "..%2F..%2Fetc",
    "no UTF-8": "%ff%fe",
    "emoji": quote("\N{MONEY WITH WINGS}"),
    "right to left": quote("\N{RIGHT-TO-LEFT OVERRIDE}cust"),
    "SQL": quote("' OR '1'='1"),
    "template": quote("{{7*7}}${7*7}"),
    "spaces": "%20%09%0d%0a",
    "long": "a" * 20_000,
}


def raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as bytes, because the client refuses to encode invalid ones."""
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


def problem(answer: httpx.Response, status: int) -> str:
    """The detail of a response, which must be a problem of this status with the trace id of its header."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["type"].startswith("urn:optiinfra:problem:")
    assert body["title"]
    assert len(body["trace_id"]) >= 16
    assert body["trace_id"] == answer.headers["x-trace-id"]
    assert body["detail"]
    return str(body["detail"])


def test_request_without_a_valid_token_is_answered_401_on_every_route_that_is_not_public(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    tried = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "security" not in operation:
                continue
            tried += 1
            address = path.replace("{", "").replace("}", "")
            for response in (
                http.request(method, address),
                http.request(method, address, content=b"{", headers=bearer("not a valid token")),
                http.request(method, address, headers={"Authorization": "Basic YTpi"}),
            ):
                assert "Authorization: Bearer" in problem(response, 401)
                assert response.headers["www-authenticate"] == "Bearer"
    assert tried > 25, document["paths"].keys()
    for unknown in ("/nothing", "/customers", "/admin/consistency/x"):
        problem(http.get(unknown), 401)


@pytest.mark.parametrize("malformed", MALFORMED_IDS.values(), ids=MALFORMED_IDS.keys())
def test_malformed_id_is_answered_404(http: httpx.Client, user: Caller, malformed: str) -> None:
    for method, path in (
        ("GET", "/customers/{}"),
        ("GET", "/customers/{}/events"),
        ("PATCH", "/customers/{}/preferences"),
        ("GET", "/analyses/{}"),
        ("GET", "/optimizations/{}"),
        ("POST", "/optimizations/{}/rollback"),
        ("POST", "/recommendations/{}/approve"),
    ):
        body = {"priority": "cost"} if method == "PATCH" else None
        assert "no such" in problem(http.request(method, path.format(malformed), headers=user.headers, json=body), 404)


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("POST", "/auth/signup", {}, "body.email: Field required"),
        ("POST", "/auth/signup", {"email": "nobody", "company_name": "C", "password": "p" * 12}, "body.email: "),
        ("POST", "/auth/signup", {"email": "a@b.example", "company_name": "C", "password": "short"}, "12 characters"),
        ("POST", "/auth/signup", {"admin": True}, "body.admin: Extra inputs"),
        ("POST", "/auth/login", {"username": ["a"], "password": "p"}, "body.username: Input should be a valid string"),
        ("POST", "/auth/login", [], "body: "),
        ("PATCH", "/customers/{customer_id}/preferences", {"priority": "fun"}, "'cost', 'performance', 'quality'"),
        ("PATCH", "/customers/{customer_id}/preferences", {"auto_approve_below": -1}, "greater than or equal to 0"),
        ("PATCH", "/customers/{customer_id}/preferences", {"auto_approve_below": 1e300}, "less than or equal to"),
        ("PATCH", "/customers/{customer_id}/preferences", {"colour": "red"}, "body.colour: Extra inputs"),
        ("POST", "/customers/{customer_id}/analyze", {"agent_type": "tax"}, "'cost', 'performance', 'resource'"),
        ("POST", "/customers/{customer_id}/onboard", {"cloud_provider": "azure"}, "body.cloud_provider: Input should"),
        (
            "POST",
            "/customers/{customer_id}/onboard",
            {"cloud_provider": "aws", "region": "a" * 5000, "iam_role_arn": "r"},
            "body.region: String should have at most 40 characters",
        ),
        ("GET", "/customers/{customer_id}/events?after=-1", None, "query.after: Input should be greater than"),
        ("GET", "/customers/{customer_id}/events?after=99999999999999999999999", None, "query.after: "),
        ("GET", "/customers/{customer_id}/events?limit=1e3", None, "query.limit: "),
        ("GET", "/customers/{customer_id}/recommendations?status=good", None, "'pending', 'approved'"),
        ("GET", "/customers/{customer_id}/metrics", None, "query.metric_type: Field required"),
        ("GET", "/customers/{customer_id}/metrics?metric_type=throughput&start_time=yesterday", None, "start_time: "),
        ("GET", "/customers/{customer_id}/metrics?metric_type=throughput&end_time=9999-12-31T00:00:00Z", None, "2199"),
        ("GET", "/customers/{customer_id}/metrics?metric_type=throughput&end_time=2026-01-01", None, "end_time: "),
    ],
)
def test_invalid_parameter_is_answered_422_with_its_location_and_the_rule(
    http: httpx.Client, user: Caller, method: str, path: str, body: object, message: str
) -> None:
    answer = http.request(method, path.format(**user.ids), headers=user.headers, json=body)
    assert message in problem(answer, 422)
    assert answer.json()["errors"], "each location is listed in machine-readable form, too"


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"\xff\xfe\x00", "application/json"),
        (b"[" * 10_000, "application/json"),
        (b"<email>a@b.example</email>", "application/xml"),
        (b"email=a%40b.example", "application/x-www-form-urlencoded"),
        (b'{"username": "a", "password": "b"}', "text/plain"),
        (b'{"username": "a", "password": "b"}', "\xe4\xf6\xfc"),
    ],
)
def test_body_that_is_not_json_is_refused(http: httpx.Client, content: bytes, content_type: str) -> None:
    answer = http.post("/auth/login", content=content, headers=raw({"Content-Type": content_type}))
    assert problem(answer, 422).startswith("body")


def test_body_above_the_limit_is_refused_and_the_largest_telemetry_batch_is_accepted(
    http: httpx.Client, callers: dict[str, Caller]
) -> None:
    runtime = callers["runtime"]
    path = f"/agent-runtime/{runtime.ids['runtime_id']}/telemetry"
    message = problem(http.post(path, content=b" " * (16 * 2**20 + 1), headers=runtime.headers), 413)
    assert "16,777,216 bytes" in message
    inventory = f"/agent-runtime/{runtime.ids['runtime_id']}/inventory"
    report = {"deployments": [deployment("chat", ["i-1"], "g5.xlarge").model_dump(mode="json")]}
    count = {
        "deployment_id": http.put(inventory, json=report, headers=runtime.headers).json()["deployment_ids"]["chat"],
        "replica_id": "replica-" + "0" * 24,
        "timestamp": "2026-01-01T00:00:00.000000+00:00",
    }
    reading = count | {"values": {"p95_latency_ms": 1234.56789}}
    latencies = [count | {"le": 0.123456789, "count": 2**40}] * 20_000
    batch = {"readings": [reading] * 20_000, "latencies": latencies}
    assert http.post(path, json=batch, headers=runtime.headers).status_code == 202
    batch = {"readings": [reading] * 20_001, "latencies": latencies}
    assert "at most 20000 items" in problem(http.post(path, json=batch, headers=runtime.headers), 422)


def forged(environment: dict[str, Any], user: Caller, **changes: Any) -> str:
    """A token of the user's session, signed with the platform's key; claims, key or algorithm can be replaced."""
    key = changes.pop("key", environment["credentials"]["token_signing_key"])
    algorithm = changes.pop("algorithm", "HS256")
    claims = jwt.decode(user.token or "", options={"verify_signature": False})
    headers = {"kid": jwt.get_unverified_header(user.token or "")["kid"]}
    return jwt.encode(claims | changes, key, algorithm=algorithm, headers=headers)


def test_token_that_is_forged_or_expired_is_refused(
    environment: dict[str, Any], http: httpx.Client, user: Caller
) -> None:
    path = f"/customers/{user.ids['customer_id']}"
    assert http.get(path, headers=bearer(forged(environment, user))).status_code == 200, (
        "otherwise the refusals below prove nothing"
    )
    header, claims, signature = forged(environment, user).split(".")
    for token in (
        "garbage",
        "a.b.c",
        "\xe9",
        forged(environment, user, exp=time.time() - 1),
        forged(environment, user, key="another key of the same length" * 3),
        forged(environment, user, key="", algorithm="none"),
        forged(environment, user, aud="someone else"),
        f"{header}.{claims}.",
        f"{header}.{claims[:-4]}AAAA.{signature}",
    ):
        problem(http.get(path, headers=raw(bearer(token))), 401)


def test_viewer_may_read_but_change_nothing(environment: dict[str, Any], http: httpx.Client, user: Caller) -> None:
    viewer = bearer(forged(environment, user, role="viewer"))
    mine = f"/customers/{user.ids['customer_id']}"
    assert http.get(f"{mine}/recommendations", headers=viewer).status_code == 200
    for method, path, body in (
        ("PATCH", f"{mine}/preferences", {"priority": "cost"}),
        ("POST", f"{mine}/analyze", {"agent_type": "cost"}),
        ("POST", f"{mine}/agent-install-command", None),
        ("DELETE", mine, None),
        ("POST", "/recommendations/rec_1/approve", None),
        ("POST", "/optimizations/opt_1/rollback", None),
    ):
        message = problem(http.request(method, path, headers=viewer, json=body), 403)
        assert "yours is viewer" in message
        assert "owner" in message


def test_caller_of_each_kind_is_refused_on_routes_of_other_kinds(
    http: httpx.Client, callers: dict[str, Caller]
) -> None:
    ids = callers["user"].ids
    beat = {"current_tasks": 0, "load": 0.0}
    register = {"agent_type": "cost", "version": "1", "capabilities": [], "hostname": "h", "base_url": unused_address()}
    routes: list[tuple[str, str, object, set[str]]] = [
        ("GET", f"/customers/{ids['customer_id']}", None, {"user", "admin"}),
        ("GET", f"/customers/{ids['customer_id']}/events", None, {"user"}),
        ("GET", f"/agent-runtime/{ids['runtime_id']}/commands?wait=0", None, {"runtime"}),
        ("POST", f"/orchestrator/agents/{ids['agent_id']}/heartbeat", beat, {"agent"}),
        ("GET", "/orchestrator/agents", None, {"admin", "user"}),
    ]
    for method, path, body, allowed in routes:
        for caller in callers.values():
            answer = http.request(method, path, headers=caller.headers, json=body)
            if caller.kind in allowed:
                assert answer.is_success, (path, caller.kind, answer.text)
            else:
                problem(answer, 401 if caller.token is None else 403)
    for caller in callers.values():
        if caller.kind not in ("enrolment", "anonymous"):
            answer = http.post("/orchestrator/agents/register", headers=caller.headers, json=register)
            assert "only enrolment may do this" in problem(answer, 403)


def test_revoked_credential_is_refused(environment: dict[str, Any], http: httpx.Client) -> None:
    with all_callers(environment) as short_lived:
        runtime, agent = short_lived["runtime"], short_lived["agent"]
        commands = f"/agent-runtime/{runtime.ids['runtime_id']}/commands?wait=0"
        assert http.get(commands, headers=runtime.headers).status_code == 200
        revoke = "UPDATE agent_tokens SET revoked_at = now() WHERE customer_id = %s"
        update_one(environment, revoke, runtime.ids["customer_id"])
        problem(http.get(commands, headers=runtime.headers), 401)

        itself = f"/orchestrator/agents/{agent.ids['agent_id']}"
        assert http.delete(itself, headers=agent.headers).status_code == 204
        beat = {"current_tasks": 0, "load": 0.0}
        problem(http.post(f"{itself}/heartbeat", headers=agent.headers, json=beat), 401)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Trace-Id": "a" * 10_000},
        {"X-Trace-Id": "<script>"},
        {"X-Trace-Id": "\xb2\xb3"},
        {"X-HTTP-Method-Override": "DELETE"},
        {"X-Original-URL": "/admin"},
        {"X-Forwarded-Host": "elsewhere.example", "Host": "elsewhere.example"},
        {"Idempotency-Key": "'; DROP TABLE samples; --"},
        {"Cookie": "session=" + "a" * 4_000},
        {f"X-Odd-{number}": "x" for number in range(50)},
    ],
)
def test_unusual_headers_have_no_effect(http: httpx.Client, user: Caller, headers: dict[str, str]) -> None:
    unusual = raw(user.headers | headers)
    mine = f"/customers/{user.ids['customer_id']}"
    answer = http.get(mine, headers=unusual)
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == user.ids["customer_id"]
    assert answer.headers["x-trace-id"].isalnum()
    assert answer.headers["x-trace-id"].isascii()
    assert len(answer.headers["x-trace-id"]) <= 64
    problem(http.get(f"{mine}/nothing/", headers=unusual), 404)


def test_idempotency_key_that_is_too_long_is_refused(http: httpx.Client, callers: dict[str, Caller]) -> None:
    runtime = callers["runtime"]
    path = f"/agent-runtime/{runtime.ids['runtime_id']}/telemetry"
    answer = http.post(path, headers=runtime.headers | {"Idempotency-Key": "k" * 256}, json={})
    assert "header.Idempotency-Key: String should have at most 255" in problem(answer, 422)


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /customers/\xff\xfe HTTP/1.1",
        b"GET /\xc3\xa9 HTTP/1.1",
        b"G\x00T / HTTP/1.1",
        b"GET / HTTP/9.9",
        b"\x16\x03\x01",
    ],
)
def test_bytes_that_are_not_http_are_refused_without_harm(http: httpx.Client, request_line: bytes) -> None:
    address = urlsplit(str(http.base_url))
    with socket.create_connection((address.hostname, address.port), timeout=stretched(5)) as raw:
        raw.sendall(request_line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
        status = raw.recv(100).split(b"\r\n")[0]
    assert status[:10] == b"HTTP/1.1 4", status
    assert http.get("/health").status_code == 200
