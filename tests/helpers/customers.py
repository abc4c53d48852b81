"""Fixtures: customers made for one test, and gone after it."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures import estates
from fixtures.estates import Estate
from fixtures.provision import provision, remove
from tests.helpers.customer import Customer

ESTATES = Path(estates.__file__).parent

NewCustomer = Callable[[Estate], Customer]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--keep` leaves the customers of a run where they are, to look at."""
    parser.addoption("--keep", action="store_true", help="keep the customers that the tests provision")


@contextmanager
def provisioned(environment: dict[str, Any], estate: Estate, *, keep: bool = False) -> Iterator[Customer]:
    """Provision an estate as a customer of its own, under a name that no other has, and take it away again."""
    seeded = provision(environment, estate, suffix=uuid.uuid4().hex[:10])
    try:
        with httpx.Client(base_url=seeded.orchestrator_url, timeout=30) as http:
            customer = Customer(environment, seeded, http)
            tokens = customer.post("/auth/login", {"username": seeded.email, "password": seeded.password})
            http.headers["Authorization"] = f"Bearer {tokens['access_token']}"
            yield customer
    finally:
        if not keep:
            remove(environment, seeded)


@pytest.fixture
def new_customer(environment: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[NewCustomer]:
    """Provision estates, each as a customer of its own."""
    keep = bool(request.config.getoption("keep"))
    # Each leaves, whatever happens to the others.
    with ExitStack() as leaving:
        yield lambda estate: leaving.enter_context(provisioned(environment, estate, keep=keep))


@pytest.fixture
def acme(new_customer: NewCustomer) -> Customer:
    """The sample estate: two deployments that may go to spot, of which one can bear it."""
    return new_customer(estates.load(ESTATES / "acme.yaml"))
