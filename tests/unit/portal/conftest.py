"""A portal in front of a fake orchestrator."""

from collections.abc import Callable, Iterator

import pytest
from starlette.testclient import TestClient

from optiinfra.api.accounts import Role
from tests.unit.portal import fake


@pytest.fixture
def orchestrator() -> fake.Orchestrator:
    return fake.Orchestrator()


@pytest.fixture
def visitor(orchestrator: fake.Orchestrator) -> Iterator[TestClient]:
    """A browser that is not signed in."""
    with fake.browser(fake.portal(orchestrator)) as client:
        yield client


SignIn = Callable[[Role], TestClient]


@pytest.fixture
def signed_in(visitor: TestClient, orchestrator: fake.Orchestrator) -> SignIn:
    """A browser signed in as a user with a role."""

    def sign_in(role: Role) -> TestClient:
        orchestrator.identity = fake.OWNER.model_copy(update={"role": role})
        visitor.post("/login", data={"email": fake.OWNER.email, "password": fake.PASSWORD})
        return visitor

    return sign_in


@pytest.fixture
def owner(visitor: TestClient) -> TestClient:
    """A browser signed in as the customer's owner."""
    answer = visitor.post("/login", data={"email": fake.OWNER.email, "password": fake.PASSWORD})
    assert answer.status_code == 303, answer.text
    return visitor
