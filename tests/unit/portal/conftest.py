"""A portal in front of a fake orchestrator."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from tests.unit.portal import fake


@pytest.fixture
def orchestrator() -> fake.Orchestrator:
    return fake.Orchestrator()


@pytest.fixture
def visitor(orchestrator: fake.Orchestrator) -> Iterator[TestClient]:
    """A browser that is not signed in."""
    with fake.browser(fake.portal(orchestrator)) as client:
        yield client


@pytest.fixture
def owner(visitor: TestClient) -> TestClient:
    """A browser signed in as the customer's owner."""
    answer = visitor.post("/login", data={"email": fake.OWNER.email, "password": fake.PASSWORD})
    assert answer.status_code == 303, answer.text
    return visitor
