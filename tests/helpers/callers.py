"""One caller of every kind, each with its own credential, to call routes with; and fixtures of them."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import httpx
import pytest

from testbed.waiting import stretched


@dataclass(frozen=True)
class Caller:
    """`token` is the bearer credential, None for an anonymous caller; `ids` are valid values of path parameters."""

    kind: str
    token: str | None
    ids: dict[str, str]

    @property
    def headers(self) -> dict[str, str]:
        """The headers of its calls."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}


def bearer(token: str) -> dict[str, str]:
    """The Authorization header with a token."""
    return {"Authorization": f"Bearer {token}"}


def call(http: httpx.Client, method: str, path: str, token: str | None = None, body: object = None) -> Any:
    """The JSON response of a call; fails unless it succeeded."""
    answer = http.request(method, path, json=body, headers={} if token is None else bearer(token))
    assert answer.is_success, f"{method} {path} answered {answer.status_code}: {answer.text}"
    return answer.json() if answer.content else None


def problem(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, kind and detail of an answer with problem details."""
    body = answer.json() if answer.content else {}
    status = body.get("status") if isinstance(body, dict) else None
    assert status == answer.status_code, f"status {answer.status_code} without problem details: {body}"
    assert body["trace_id"]
    return answer.status_code, body["type"].removeprefix("urn:optiinfra:problem:"), body["detail"]


def unused_address() -> str:
    """An address on loopback at which nothing listens, and no other agent is registered."""
    return f"http://{ip_address(0x7F000000 + 2 + uuid.uuid4().int % 0xFFFFF0)}:9"


@contextmanager
def all_callers(environment: dict[str, Any]) -> Iterator[dict[str, Caller]]:
    """One caller of each kind, by kind. The user and the runtime belong to a customer without an estate."""
    secrets = environment["credentials"]
    with httpx.Client(base_url=environment["urls"]["orchestrator"], timeout=30) as http, ExitStack() as cleanup:
        signup = {"email": f"caller-{uuid.uuid4().hex}@example.com", "company_name": "C", "password": "a long password"}
        customer_id = call(http, "POST", "/auth/signup", body=signup)["customer_id"]
        cleanup.callback(call, http, "DELETE", f"/customers/{customer_id}", secrets["admin_token"])
        login = {"username": signup["email"], "password": signup["password"]}
        user = call(http, "POST", "/auth/login", body=login)["access_token"]
        installed = call(http, "POST", f"/customers/{customer_id}/agent-install-command", user)
        connect = {
            "customer_id": customer_id,
            "agent_token": installed["agent_token"],
            "hostname": "caller",
            "version": "1",
        }
        runtime_id = call(http, "POST", "/agent-runtime/connect", body=connect)["runtime_id"]
        # Without capabilities, so that it is never given a task.
        register = {
            "agent_type": "resource",
            "version": "1",
            "capabilities": [],
            "hostname": "caller",
            "base_url": unused_address(),
        }
        agent = call(http, "POST", "/orchestrator/agents/register", secrets["enrolment_secret"], register)
        itself = f"/orchestrator/agents/{agent['agent_id']}"
        cleanup.callback(http.delete, itself, headers=bearer(agent["agent_secret"]))
        ids = {"customer_id": customer_id, "runtime_id": runtime_id, "agent_id": agent["agent_id"]}
        tokens = {
            "anonymous": None,
            "user": user,
            "runtime": installed["agent_token"],
            "agent": agent["agent_secret"],
            "enrolment": secrets["enrolment_secret"],
            "admin": secrets["admin_token"],
        }
        yield {kind: Caller(kind, token, ids) for kind, token in tokens.items()}


@pytest.fixture(scope="module")
def callers(environment: dict[str, Any]) -> Iterator[dict[str, Caller]]:
    with all_callers(environment) as callers:
        yield callers


@pytest.fixture(scope="module")
def http(environment: dict[str, Any]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=environment["urls"]["orchestrator"], timeout=stretched(15)) as client:
        yield client


@pytest.fixture
def user(callers: dict[str, Caller]) -> Caller:
    return callers["user"]
