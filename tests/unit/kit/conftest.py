from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from tests.unit.kit.service import notes_service


@pytest.fixture
def client() -> Iterator[TestClient]:
    """A client with a valid credential."""
    headers = {"Authorization": "Bearer right"}
    with TestClient(notes_service(), headers=headers, raise_server_exceptions=False) as client:
        yield client
