"""Fixtures: customers that are provisioned for one test and removed after it."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures import estates
from fixtures.estates import Estate
from fixtures.provision import SeededEstate, provision, remove
from fixtures.trust import AUTHORITIES
from optiinfra.domain.optimization import FINAL
from tests.helpers.accounts import estate_of, signed_up
from tests.helpers.customer import Customer

ESTATES = Path(estates.__file__).parent

NewCustomer = Callable[[Estate], Customer]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--keep` keeps the customers of a run for inspection."""
    parser.addoption("--keep", action="store_true", help="keep the customers that the tests provision")


@contextmanager
def provisioned(environment: dict[str, Any], estate: Estate, *, keep: bool = False) -> Iterator[Customer]:
    """Provision an estate as a new customer with a unique name, and remove it afterwards."""
    seeded = provision(environment, estate, suffix=uuid.uuid4().hex[:10])
    try:
        with _signed_in(environment, seeded) as customer:
            yield customer
            if not keep:
                end_changes(customer)
    finally:
        if not keep:
            remove(environment, seeded)


def end_changes(customer: Customer) -> None:
    """Roll back what a failed test has left in progress: until then the customer cannot be deleted."""
    listed = customer.http.get(f"/customers/{customer.id}/optimizations")
    started = listed.json() if listed.is_success else []  # the test may have deleted the customer
    unfinished = [one["id"] for one in started if one["status"] not in FINAL]
    for optimization_id in unfinished:
        customer.http.post(f"/optimizations/{optimization_id}/rollback")
    for optimization_id in unfinished:
        customer.wait_for_optimization(optimization_id)


@contextmanager
def without_estate(environment: dict[str, Any]) -> Iterator[Customer]:
    """A new customer without cloud accounts and deployments, who is deleted afterwards."""
    with signed_up(environment) as owner, _signed_in(environment, estate_of(environment, owner)) as customer:
        yield customer


@contextmanager
def _signed_in(environment: dict[str, Any], seeded: SeededEstate) -> Iterator[Customer]:
    with httpx.Client(base_url=seeded.orchestrator_url, timeout=30, verify=AUTHORITIES) as http:
        customer = Customer(environment, seeded, http)
        tokens = customer.post("/auth/login", {"username": seeded.email, "password": seeded.password})
        http.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        yield customer


@pytest.fixture
def new_customer(environment: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[NewCustomer]:
    """Provision estates, each as a new customer."""
    keep = bool(request.config.getoption("keep"))
    # The stack removes every customer, even if removing another one fails.
    with ExitStack() as removals:
        yield lambda estate: removals.enter_context(provisioned(environment, estate, keep=keep))


@pytest.fixture
def acme(new_customer: NewCustomer) -> Customer:
    """The sample estate: the owner allows spot for both deployments, and one of them can tolerate interruptions."""
    return new_customer(estates.load(ESTATES / "acme.yaml"))
