"""What one customer may have in progress at once."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from testbed.waiting import wait_until
from tests.helpers.callers import problem
from tests.helpers.customers import without_estate
from tests.helpers.live import connect_live
from tests.helpers.private_platform import private_platform_over

ANALYSES, STREAMS = 2, 3
QUOTAS = {"QUOTA_ANALYSES": str(ANALYSES), "QUOTA_STREAMS": str(STREAMS)}


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
