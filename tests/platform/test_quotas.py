"""What one customer may have in progress at once."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from optiinfra.api.common import now
from optiinfra.api.telemetry import Sample, TelemetryBatch
from testbed.waiting import wait_until
from tests.helpers.callers import problem
from tests.helpers.customers import without_estate
from tests.helpers.database import execute
from tests.helpers.live import connect_live
from tests.helpers.private_platform import private_platform_over
from tests.helpers.runtime import PlayedRuntime, connected_runtime, customer_without_fleet, deployment

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
        body = TelemetryBatch(samples=[sample] * count).model_dump(mode="json")
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
