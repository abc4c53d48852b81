"""An optimization that takes too long is undone, and says so."""

import pytest

from tests.helpers.customer import Customer
from tests.helpers.migration import assert_undone_once, estate_of, finished, migrate

SECONDS = "2"
"""Less than any migration of the sample estate takes."""


@pytest.mark.parametrize("private_platform", [{"OPTIMIZATION_DEADLINE_SECONDS": SECONDS}], indirect=True, ids=["2 s"])
def test_past_its_deadline_a_migration_is_rolled_back(private_acme: Customer) -> None:
    before = estate_of(private_acme)

    optimization = finished(private_acme, migrate(private_acme))

    assert_undone_once(private_acme, optimization, before)
    assert optimization.result is not None
    assert optimization.result.error == "the optimization's deadline passed"
    assert optimization.execution_steps[-1].status == "failed"
