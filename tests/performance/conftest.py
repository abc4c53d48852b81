"""The environment of performance tests, whose services run without coverage."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from testbed import consistency
from testbed import environment as environments
from tests.helpers.private_platform import private_platform_over


@pytest.fixture(scope="package")
def environment(environment: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The given environment if its services run without coverage, else a private platform over its engines."""
    host = environments.load(environment["name"])
    assert host is not None, f"environment {environment['name']} is gone"
    if not host.settings.coverage:
        yield environment
        return
    with private_platform_over(environment, f"performance-{os.getpid()}", proxied=(), coverage=False) as platform:
        yield platform.document
        dangling = consistency.fetch(platform.described)["dangling"]
        assert dangling == [], f"the stores and clouds of {platform.name} are not consistent"
