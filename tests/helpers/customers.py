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
from fixtures.estates.schema import CustomerPart
from fixtures.platform import PlatformClient
from fixtures.provision import SeededEstate, provision, remove
from fixtures.trust import AUTHORITIES
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
    finally:
        if not keep:
            remove(environment, seeded)


@contextmanager
def signed_up(environment: dict[str, Any]) -> Iterator[Customer]:
    """Sign up a new customer, who has no estate, and remove it afterwards."""
    urls, email, password = environment["urls"], f"owner-{uuid.uuid4().hex[:10]}@example.com", "a long password"
    with PlatformClient(urls["orchestrator"]) as platform:
        owner = CustomerPart(company_name="No estate", email=email, password=password, plan="pro")
        customer_id = platform.sign_up(owner)
    seeded = SeededEstate(
        customer_id=customer_id,
        email=email,
        password=password,
        orchestrator_url=urls["orchestrator"],
        portal_url=urls["portal"],
        fleet_url=urls["inference-fleet"],
        clouds=[],
        deployments=[],
    )
    try:
        with _signed_in(environment, seeded) as customer:
            yield customer
    finally:
        remove(environment, seeded)


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
