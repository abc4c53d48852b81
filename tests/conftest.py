"""Fixtures of all tests; those for environments are in `tests/helpers`, by concept."""

import pytest

pytest_plugins = ["pytester", "tests.helpers.customers", "tests.helpers.private_platform"]


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio; `tests/contract` adds uvloop."""
    return "asyncio"
