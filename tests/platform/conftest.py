"""Fixtures: callers of every kind, and a client of the orchestrator."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from testbed.waiting import stretched
from tests.helpers.callers import Caller, all_callers


@pytest.fixture(scope="module")
def callers(environment: dict[str, Any]) -> Iterator[dict[str, Caller]]:
    with all_callers(environment) as callers:
        yield callers


@pytest.fixture(scope="module")
def http(environment: dict[str, Any]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=environment["urls"]["orchestrator"], timeout=stretched(15)) as client:
        yield client


@pytest.fixture
def user(callers: dict[str, Caller]) -> Caller:
    return callers["user"]
