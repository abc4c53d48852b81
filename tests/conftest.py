"""Fixtures of all tests; those for environments are in `tests/helpers`, by concept."""

import pytest

pytest_plugins = [
    "pytester",
    "tests.helpers.callers",
    "tests.helpers.customers",
    "tests.helpers.private_platform",
    "tests.helpers.processes",
]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio, as the platform does."""
    return "asyncio"
