"""Consistency across stores and clouds: who sees the report, and deletions in the middle of other work."""

import json
import os
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from fixtures import estates
from optiinfra.api.common import now
from optiinfra.api.consistency import Consistency
from optiinfra.domain.optimization import FINAL
from testbed.waiting import stretched, wait_until
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, provisioned
from tests.helpers.dangling_references import SeedTarget
from tests.helpers.own_environment import OwnEnvironment
from tests.helpers.private_platform import PrivatePlatform, private_platform_over
from tests.helpers.stores import Stores

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")

MIGRATED = "vllm-prod-1"


@dataclass(frozen=True)
class Platform:
    """The private platform of this module, for calls as administrator and direct access to its stores."""

    own: OwnEnvironment
    stores: Stores

    def admin(self, method: str, path: str) -> httpx.Response:
        """One call as the administrator."""
        document = self.own.document
        headers = {"Authorization": f"Bearer {document['credentials']['admin_token']}"}
        return httpx.request(method, document["urls"]["orchestrator"] + path, headers=headers, timeout=60)

    def consistency(self) -> Consistency:
        """The platform's own consistency report."""
        answer = self.admin("GET", "/admin/consistency")
        assert answer.status_code == 200, answer.text
        return Consistency.model_validate(answer.json())


@pytest.fixture(scope="module")
def own(environment: dict[str, Any]) -> Iterator[PrivatePlatform]:
    """Without other tests' customers, and without recovery, which would repair seeded defects."""
    with private_platform_over(environment, f"consistency-{os.getpid()}", {"RECOVERY_SECONDS": "3600"}) as platform:
        yield platform


@pytest.fixture(scope="module")
def platform(own: OwnEnvironment) -> Iterator[Platform]:
    stores = Stores(own.document)
    yield Platform(own, stores)
    stores.close()


@contextmanager
def acme(own: OwnEnvironment) -> Iterator[Customer]:
    with provisioned(own.document, estates.load(ESTATES / "acme.yaml")) as customer:
        yield customer


@pytest.fixture(scope="module")
def migrated(own: OwnEnvironment) -> Iterator[Customer]:
    """A customer with a completed migration and its outcome."""
    with acme(own) as customer:
        approval = customer.post(f"/recommendations/{customer.analyze('cost')[MIGRATED].id}/approve")
        optimization = customer.wait_for_optimization(approval["optimization_id"])
        assert optimization.status == "completed", optimization.result
        yield customer


@pytest.fixture
def customer(own: OwnEnvironment) -> Iterator[Customer]:
    with acme(own) as customer:
        yield customer


def ids_of(customer: Customer, stores: Stores) -> list[str]:
    """The customer's id, its unique part of the email address, and the ids of its rows."""
    tables = ("analyses", "recommendations", "optimizations", "deployments", "cloud_accounts", "runtimes", "users")
    rows = [stores.sql(f"SELECT id FROM {table} WHERE customer_id = %s", customer.id) for table in tables]  # noqa: S608
    return [customer.id, customer.seeded.email.partition("+")[2], *(row[0] for found in rows for row in found)]


def assert_no_traces(platform: Platform, ids: list[str]) -> None:
    assert platform.stores.count_mentions(ids) == {}
    assert platform.consistency().dangling == []


def wait_consistently(platform: Platform, customer: Customer, optimization_id: str, ends: Collection[str]) -> str:
    """The final status of the optimization. Until then, no report may show a dangling reference."""

    def status() -> str:
        dangling = platform.consistency().dangling
        assert dangling == [], f"while it is {customer.optimization(optimization_id).status}"
        return customer.optimization(optimization_id).status

    return wait_until(status, f"{optimization_id} to end", 240, accept=lambda status: status in ends)


def test_consistency_report_for_anyone_but_the_administrator_is_refused(
    migrated: Customer, own: OwnEnvironment
) -> None:
    path, url = "/admin/consistency", own.document["urls"]["orchestrator"]
    enrolment = {"Authorization": f"Bearer {own.document['credentials']['enrolment_secret']}"}

    assert httpx.get(url + path).status_code == 401
    assert httpx.get(url + path, headers=enrolment).status_code == 403
    assert migrated.http.get(path).status_code == 403


def test_consistency_report_after_a_migration_is_clean(platform: Platform, migrated: Customer) -> None:
    seen = platform.consistency()

    assert seen.dangling == []
    assert seen.consistent
    unseen = {kind for kind, count in seen.checked.items() if count == 0}
    # Nothing is in progress or pending, and no recommendation refers to an earlier outcome.
    assert unseen == {"optimizations", "analyses", "commands", "similar_outcomes", "step_spot_requests"}


def test_unreachable_account_is_reported(platform: Platform, migrated: Customer) -> None:
    platform.stores.sql(
        "INSERT INTO cloud_accounts (id, customer_id, provider, region, role_arn, status)"
        " VALUES ('acct_shut', %s, 'aws', 'us-east-1', 'no-role', 'discovered')",
        migrated.id,
    )
    try:
        seen = platform.consistency()
    finally:
        platform.stores.sql("DELETE FROM cloud_accounts WHERE id = 'acct_shut'")

    (unreachable,) = seen.dangling
    assert (unreachable.store, unreachable.kind, unreachable.id) == ("cloud", "unreachable", "acct_shut")
    assert "no-role" in unreachable.refers_to
    assert not seen.consistent
    assert seen.checked["cloud_accounts"] == 1, "the other account is checked nevertheless"


def test_check_consistency_verb_with_a_dangling_reference_names_both_ends_and_exits_1(
    platform: Platform, migrated: Customer
) -> None:
    fine = platform.own.invoke("check-consistency")
    assert fine.returncode == 0, fine.stdout + fine.stderr
    assert "presence" in fine.stdout

    with SeedTarget(platform.stores, migrated).presence("agent_ghost"):
        as_json, as_text = platform.own.invoke("check-consistency", "--json"), platform.own.invoke("check-consistency")

    assert (as_json.returncode, as_text.returncode) == (1, 1)
    answer: dict[str, Any] = json.loads(as_json.stdout)
    ghost = {"store": "redis", "kind": "presence", "id": "agent_ghost", "refers_to": "registered agent agent_ghost"}
    assert (answer["consistent"], answer["dangling"]) == (False, [ghost])
    assert "redis presence agent_ghost -> registered agent agent_ghost" in as_text.stderr


def test_customer_deleted_after_a_migration_and_rollback_leaves_no_traces(
    platform: Platform, customer: Customer
) -> None:
    approval = customer.post(f"/recommendations/{customer.analyze('cost')[MIGRATED].id}/approve")
    optimization_id = approval["optimization_id"]
    assert wait_consistently(platform, customer, optimization_id, FINAL) == "completed"
    customer.post(f"/optimizations/{optimization_id}/rollback")
    assert customer.http.delete(f"/customers/{customer.id}").status_code == 409, "its rollback is in progress"
    assert wait_consistently(platform, customer, optimization_id, {"rolled_back", "failed"}) == "rolled_back"
    ids = ids_of(customer, platform.stores)
    before = platform.stores.count_mentions(ids)
    for where in ("postgresql dbos.operation_outputs", "postgresql public.events", "clickhouse samples", "qdrant"):
        assert before[where] > 0, f"no trace in {where} before the deletion: {before}"

    assert customer.http.delete(f"/customers/{customer.id}").status_code == 204

    assert_no_traces(platform, ids)


@pytest.mark.parametrize("event", ["analysis_started", "recommendation_created", "recommendation_validated"])
def test_customer_deleted_during_an_analysis_leaves_no_traces(
    platform: Platform, customer: Customer, event: str
) -> None:
    with customer.live_events() as events:
        analysis_id = customer.start_analysis("cost")
        events.wait_for(event, 60)
        ids = [*ids_of(customer, platform.stores), analysis_id]

        assert customer.http.delete(f"/customers/{customer.id}").status_code == 204

    assert_no_traces(platform, ids)


def test_customer_deleted_while_telemetry_arrives_leaves_no_traces(platform: Platform, customer: Customer) -> None:
    token = customer.post(f"/customers/{customer.id}/agent-install-command")["agent_token"]
    connect = {"customer_id": customer.id, "agent_token": token, "hostname": "host", "version": "1"}
    runtime_id = customer.post("/agent-runtime/connect", connect)["runtime_id"]
    reading = {"deployment_id": customer.deployment_id(MIGRATED), "timestamp": now().isoformat()}
    body = json.dumps({"readings": [reading | {"values": {"throughput": 1.0}}]}).encode()
    url = httpx.URL(customer.seeded.orchestrator_url)
    head = (
        f"POST /agent-runtime/{runtime_id}/telemetry HTTP/1.1\r\nHost: {url.host}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection((url.host, url.port or 80), timeout=stretched(10)) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 "), (
            "the sender is authenticated and the body is expected"
        )

        assert customer.http.delete(f"/customers/{customer.id}").status_code == 204

        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 404 ")
    assert_no_traces(platform, [customer.id])


def test_customer_deleted_again_after_a_crash_during_deletion_leaves_no_traces(
    platform: Platform, customer: Customer
) -> None:
    customer.analyze("cost")
    ids = ids_of(customer, platform.stores)
    # The state after a crash of the orchestrator right after the first commit.
    platform.stores.sql("SET optiinfra.audit_deletion = 'on'")
    platform.stores.sql("DELETE FROM audit_log WHERE chain = %s", customer.id)
    platform.stores.sql("DELETE FROM customers WHERE id = %s", customer.id)
    kinds = {one.kind for one in platform.consistency().dangling}
    assert kinds >= {"samples", "latency_counts", "workflows"}

    assert platform.admin("DELETE", f"/customers/{customer.id}").status_code == 404

    assert_no_traces(platform, ids)
