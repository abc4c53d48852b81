"""What one customer may have in progress at once."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from optiinfra.api.common import now
from optiinfra.api.telemetry import Sample, TelemetryBatch
from testbed.waiting import wait_until
from tests.helpers.accounts import Account, owner_of
from tests.helpers.callers import bearer, problem
from tests.helpers.customer import Customer
from tests.helpers.customers import without_estate
from tests.helpers.database import connect, execute
from tests.helpers.live import connect_live
from tests.helpers.private_platform import private_platform_over
from tests.helpers.runtime import PlayedRuntime, connected_runtime, customer_without_fleet, deployment
from tests.helpers.users import joined

ANALYSES, STREAMS, SAMPLES = 2, 3, 10
QUOTAS = {
    "QUOTA_ANALYSES": str(ANALYSES),
    "QUOTA_STREAMS": str(STREAMS),
    "QUOTA_ONBOARDINGS": "1",
    "RATE_LIMIT_SAMPLES": f"{SAMPLES}/minute",
    "RECOVERY_SECONDS": "600",  # accounts stay in discovery
}


@pytest.fixture(scope="module")
def document(environment: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A platform with small quotas, without agents: analyses wait for them."""
    with private_platform_over(environment, "quotas", QUOTAS, proxied=(), agents=False) as platform:
        yield platform.document


def test_analysis_above_the_quota_is_refused_and_another_customer_is_not(document: dict[str, Any]) -> None:
    with without_estate(document) as busy, without_estate(document) as other:
        for _ in range(ANALYSES):
            busy.start_analysis("cost")
        refused = busy.http.post(f"/customers/{busy.id}/analyze", json={"agent_type": "cost"})
        status, kind, detail = problem(refused)
        assert (status, kind, refused.headers["retry-after"]) == (429, "rate_limited", "5")
        assert detail == f"at most {ANALYSES} analyses of a customer may be in progress: try again in 5 s"
        other.start_analysis("cost")


def test_stream_above_the_quota_is_refused_until_another_is_closed(document: dict[str, Any]) -> None:
    with without_estate(document) as busy, without_estate(document) as other, ExitStack() as opened:
        url, token = document["urls"]["orchestrator"], busy.http.headers["Authorization"].removeprefix("Bearer ")

        def open_stream() -> Any:
            return opened.enter_context(connect_live(url, busy.id, token))

        streams = [open_stream() for _ in range(STREAMS)]
        with pytest.raises(InvalidStatus) as refused:
            open_stream()
        assert refused.value.response.status_code == 403
        opened.enter_context(connect_live(url, other.id, other.http.headers["Authorization"].removeprefix("Bearer ")))
        streams.pop().close()
        wait_until(open_stream, "room for another stream", 30, transient=(InvalidStatus,))


def test_samples_above_the_limit_are_refused_and_those_of_another_customer_are_not(document: dict[str, Any]) -> None:
    def send(runtime: PlayedRuntime, deployment_id: str, count: int) -> httpx.Response:
        sample = Sample(deployment_id=deployment_id, metric="throughput", timestamp=now(), value=1.0)
        body = TelemetryBatch.of([sample] * count).model_dump(mode="json")
        return runtime.http.post(f"{runtime.path}/telemetry", json=body)

    with ExitStack() as stack:
        runtimes = [
            stack.enter_context(connected_runtime(stack.enter_context(customer_without_fleet(document))))
            for _ in range(2)
        ]
        reports = [runtime.report(deployment("chat", ["i-1"], "g5.xlarge"))["chat"] for runtime in runtimes]
        assert send(runtimes[0], reports[0], SAMPLES - 1).status_code == 202
        refused = send(runtimes[0], reports[0], 2)
        assert problem(refused)[:2] == (429, "rate_limited")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert send(runtimes[0], reports[0], 1).status_code == 202
        assert send(runtimes[1], reports[1], SAMPLES).status_code == 202


MORE_THAN_CONNECTIONS = 60
SESSIONS = 15
"""So many that requests with one credential, of which few are carried out at once, would take all connections."""


@contextmanager
def sent_while_customer_is_locked(
    document: dict[str, Any],
    customer: Customer,
    method: str,
    path: str,
    tokens: Sequence[str],
    body: dict[str, Any] | None = None,
) -> Iterator[list[Future[httpx.Response]]]:
    """More requests than the platform has connections, none of which can end within the block."""
    with (
        connect(document) as blocking,
        httpx.Client(
            base_url=document["urls"]["orchestrator"], timeout=60, limits=httpx.Limits(max_connections=None)
        ) as http,
        ThreadPoolExecutor(MORE_THAN_CONNECTIONS) as pool,
    ):
        blocking.execute("SELECT 1 FROM customers WHERE id = %s FOR UPDATE", (customer.id,))
        requests = [
            pool.submit(http.request, method, path, json=body, headers=bearer(token))
            for token in islice(cycle(tokens), MORE_THAN_CONNECTIONS)
        ]
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        wait_until(lambda: execute(document, waiting)[0][0] >= 1, "a request to wait for the lock", 30)
        yield requests
        assert not any(each.done() for each in requests)
        blocking.rollback()


def sessions(http: httpx.Client, user: Account) -> list[str]:
    """Access tokens of several sessions of a user."""
    return [user.sign_in(http)["access_token"] for _ in range(SESSIONS)]


def test_changes_that_wait_for_each_other_leave_connections_to_other_customers(document: dict[str, Any]) -> None:
    with without_estate(document) as busy, without_estate(document) as other:
        tokens, body = sessions(busy.http, owner_of(document, busy)), {"agent_type": "cost"}
        with sent_while_customer_is_locked(
            document, busy, "POST", f"/customers/{busy.id}/analyze", tokens, body
        ) as sent:
            assert other.http.post(f"/customers/{other.id}/analyze", json=body).status_code == 202
        assert {each.result().status_code for each in sent} <= {202, 429, 503}


def test_refusals_that_wait_for_their_audit_entry_leave_connections_to_other_customers(
    document: dict[str, Any],
) -> None:
    with without_estate(document) as busy, without_estate(document) as other:
        viewers = sessions(busy.http, joined(other.http, owner_of(document, busy), "viewer"))
        with sent_while_customer_is_locked(document, busy, "GET", f"/customers/{busy.id}/cloud-trust", viewers) as sent:
            assert other.http.post(f"/customers/{other.id}/analyze", json={"agent_type": "cost"}).status_code == 202
        assert {each.result().status_code for each in sent} <= {403, 503}


def test_requests_of_a_runtime_that_wait_for_each_other_leave_connections_to_other_customers(
    document: dict[str, Any],
) -> None:
    with (
        customer_without_fleet(document) as busy,
        connected_runtime(busy) as runtime,
        without_estate(document) as other,
    ):
        token = runtime.http.headers["Authorization"].removeprefix("Bearer ")
        inventory = {"deployments": [deployment("chat", ["i-1"], "g5.xlarge").model_dump(mode="json")]}
        with sent_while_customer_is_locked(
            document, busy, "PUT", f"{runtime.path}/inventory", [token], inventory
        ) as sent:
            assert other.http.post(f"/customers/{other.id}/analyze", json={"agent_type": "cost"}).status_code == 202
        assert {each.result().status_code for each in sent} <= {200, 503}


def test_onboarding_above_the_quota_is_refused_until_an_account_is_discovered(document: dict[str, Any]) -> None:
    with customer_without_fleet(document) as customer:
        execute(
            document,
            "INSERT INTO cloud_accounts (id, customer_id, provider, region, role_arn, account_id, status)"
            " VALUES (%s, %s, 'aws', 'eu-west-1', 'arn:aws:iam::000000000001:role/r', '000000000001', 'discovering')",
            f"acct_{customer.id[5:]}",
            customer.id,
        )
        body = {"cloud_provider": "aws", "region": "us-east-1", "iam_role_arn": customer.seeded.clouds[0].role_arn}
        refused = customer.http.post(f"/customers/{customer.id}/onboard", json=body)
        assert problem(refused)[:2] == (429, "rate_limited")
        execute(document, "UPDATE cloud_accounts SET status = 'failed' WHERE customer_id = %s", customer.id)
        assert customer.http.post(f"/customers/{customer.id}/onboard", json=body).status_code == 202
