"""A private platform leaves nothing in the engines of its host."""

import os
from contextlib import closing
from typing import Any

from testbed.waiting import wait_until
from tests.helpers.private_platform import private_platform_over
from tests.helpers.stores import Stores


def data_of(stores: Stores, namespace: str) -> dict[str, list[str]]:
    """The data in the host's engines under a namespace, by engine."""
    databases = stores.sql("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", namespace)
    collections = [each.name for each in stores.qdrant.get_collections().collections]
    return {
        "postgresql": [name for (name,) in databases],
        "clickhouse": stores.clickhouse(f"SELECT name FROM system.databases WHERE startsWith(name, '{namespace}')"),  # noqa: S608
        "qdrant": [name for name in collections if name.startswith(namespace)],
        "redis": list(stores.redis.scan_iter(f"{namespace}:*")),
    }


def test_private_platform_removes_its_data_from_all_engines(environment: dict[str, Any]) -> None:
    with closing(Stores(environment)) as stores:
        with private_platform_over(environment, f"removed-{os.getpid()}") as platform:
            namespace = platform.described.namespace
            stores.redis.set(f"{namespace}:kept", 1)  # the services' own keys expire when they stop
            wait_until(
                lambda: data_of(stores, namespace),
                "data of it in every engine",
                30,
                accept=lambda found: all(found.values()),
            )
        assert data_of(stores, namespace) == {"postgresql": [], "clickhouse": [], "qdrant": [], "redis": []}
