"""What is tried again, and for how long."""

from typing import Any

from sqlalchemy.exc import NoResultFound

from optiinfra.orchestrator.durable import patient, unfailing
from optiinfra.stores.errors import StoreUnavailable

DAY = 24 * 3600


def test_what_is_true_is_noted_however_long_a_store_is_away() -> None:
    options: dict[str, Any] = dict(unfailing("complete"))
    assert options["should_retry"](StoreUnavailable("PostgreSQL does not answer"))
    assert options["interval_seconds"] * options["max_attempts"] > DAY
    assert options["backoff_rate"] == 1.0, "once the store is back it is noted at once"
    assert not options["should_retry"](ValueError("a defect stays one"))


def test_a_step_outlasts_an_outage_of_half_a_minute_and_misses_no_row_that_is_gone() -> None:
    options: dict[str, Any] = dict(patient("draft"))
    waits = [options["interval_seconds"] * 2**number for number in range(options["max_attempts"] - 1)]
    assert sum(waits) > 30
    assert options["should_retry"](StoreUnavailable("ClickHouse does not answer"))
    assert not options["should_retry"](NoResultFound())
