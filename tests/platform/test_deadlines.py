"""An optimization that takes too long is undone, and says so."""

from collections.abc import Iterator

import pytest

from fixtures import estates
from tests.helpers import cloud_truth
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, provisioned
from tests.helpers.migration import MOVED, assert_undone_once, finished, migrate
from tests.helpers.private_platform import PrivatePlatform

SECONDS = "2"
"""Less than any migration of the sample estate takes."""


@pytest.fixture
def acme(private_platform: PrivatePlatform) -> Iterator[Customer]:
    with provisioned(private_platform.document, estates.load(ESTATES / "acme.yaml")) as customer:
        yield customer


@pytest.mark.parametrize("private_platform", [{"OPTIMIZATION_DEADLINE_SECONDS": SECONDS}], indirect=True, ids=["2 s"])
def test_past_its_deadline_a_migration_is_rolled_back(acme: Customer) -> None:
    before, running = acme.fleet(MOVED), cloud_truth.running(acme.seeded)

    optimization = finished(acme, migrate(acme))

    assert_undone_once(acme, optimization, MOVED, before, running)
    assert optimization.result is not None
    assert optimization.result.error == "the optimization's deadline passed"
    assert optimization.execution_steps[-1].status == "failed"
