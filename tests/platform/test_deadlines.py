"""An optimization past its deadline is rolled back, and its result says so."""

import pytest

from tests.helpers.customer import Customer
from tests.helpers.migration import assert_rolled_back_once, observe, start_migration, wait_for_optimization

SECONDS = "2"
"""Shorter than any migration of the sample estate."""


@pytest.mark.parametrize("private_platform", [{"OPTIMIZATION_DEADLINE_SECONDS": SECONDS}], indirect=True, ids=["2 s"])
def test_migration_past_its_deadline_is_rolled_back(private_acme: Customer) -> None:
    before = observe(private_acme)

    optimization = wait_for_optimization(private_acme, start_migration(private_acme))

    assert_rolled_back_once(private_acme, optimization, before)
    assert optimization.result is not None
    assert optimization.result.error == "the optimization's deadline passed"
    assert optimization.execution_steps[-1].status == "failed"
