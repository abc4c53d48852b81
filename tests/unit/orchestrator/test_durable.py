"""Retry policies of durable steps: for which errors, and for how long."""

from typing import Any

from sqlalchemy.exc import NoResultFound

from optiinfra.orchestrator.durable import retry_on_errors, retry_while_unavailable
from optiinfra.stores.errors import StoreUnavailable

DAY = 24 * 3600


def test_retry_while_unavailable_outlasts_any_outage() -> None:
    options: dict[str, Any] = dict(retry_while_unavailable("complete"))
    assert options["should_retry"](StoreUnavailable("PostgreSQL does not answer"))
    assert options["interval_seconds"] * options["max_attempts"] > DAY
    assert options["backoff_rate"] == 1.0, "the step is retried soon after the store is back"
    assert not options["should_retry"](ValueError("a defect stays one"))


def test_retry_on_errors_outlasts_half_a_minute_and_ignores_missing_rows() -> None:
    options: dict[str, Any] = dict(retry_on_errors("draft"))
    waits = [options["interval_seconds"] * 2**number for number in range(options["max_attempts"] - 1)]
    assert sum(waits) > 30
    assert options["should_retry"](StoreUnavailable("ClickHouse does not answer"))
    assert not options["should_retry"](NoResultFound())
