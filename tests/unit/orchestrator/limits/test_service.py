"""Places of requests: by credential or address before authentication, by customer afterwards."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import SimpleNamespace

import pytest
from starlette.requests import HTTPConnection

from optiinfra.kit.auth import Principal
from optiinfra.kit.bulkhead import Bulkhead
from optiinfra.orchestrator.limits import service as limits

pytestmark = pytest.mark.anyio

PUBLIC = ("/auth/login",)


class Process:
    """A process with one place of each kind."""

    def __init__(self) -> None:
        self.requests, self.reads, self.changes = Bulkhead(1), Bulkhead(1), Bulkhead(1)

    def connection(
        self,
        path: str = "/customers",
        *,
        token: str = "",
        host: str = "192.0.2.1",
        method: str = "GET",
        principal: Principal | None = None,
    ) -> HTTPConnection:
        """A request to it."""
        state = SimpleNamespace(platform=self)
        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        scope = {"type": "http", "method": method, "path": path, "headers": headers, "client": (host, 1)}
        return HTTPConnection(
            {**scope, "app": SimpleNamespace(state=state), "state": {"principal": principal} if principal else {}}
        )


async def second_waits(
    admit: Callable[[HTTPConnection], AbstractAsyncContextManager[None]], first: HTTPConnection, second: HTTPConnection
) -> bool:
    """Whether the second request waits for the first one."""
    async with admit(first):
        place = asyncio.ensure_future(admit(second).__aenter__())
        for _ in range(5):
            await asyncio.sleep(0)
        waits = not place.done()
        place.cancel()
        return waits


def of_caller(connection: HTTPConnection) -> AbstractAsyncContextManager[None]:
    return limits.place_of_caller(connection, PUBLIC)


async def test_requests_with_one_credential_wait_for_each_other_from_any_address() -> None:
    process = Process()
    first = process.connection(token="a")
    assert await second_waits(of_caller, first, process.connection("/agents", token="a", host="198.51.100.1"))
    assert not await second_waits(of_caller, first, process.connection(token="b"))


async def test_made_up_credentials_get_no_place_of_their_own_on_a_public_path() -> None:
    process = Process()
    first = process.connection("/auth/login", token="a")
    assert await second_waits(of_caller, first, process.connection("/auth/login", token="b"))
    assert await second_waits(of_caller, first, process.connection("/auth/login"))
    assert not await second_waits(of_caller, first, process.connection("/auth/login", host="198.51.100.1"))


async def test_requests_without_a_credential_wait_for_those_of_their_network_to_the_same_path() -> None:
    process = Process()
    first = process.connection("/metrics", host="2001:db8::1")
    assert await second_waits(of_caller, first, process.connection("/metrics", host="2001:db8::ffff"))
    assert not await second_waits(of_caller, first, process.connection("/health", host="2001:db8::1"))
    assert not await second_waits(of_caller, first, process.connection("/metrics", host="2001:db8:0:1::1"))


def principal(kind: str, customer_id: str = "cust_1") -> Principal:
    return Principal(kind=kind, subject=f"{kind}_{customer_id}", customer_id=customer_id)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "other", "waits"),
    [("GET", "GET", True), ("GET", "HEAD", True), ("POST", "DELETE", True), ("POST", "GET", False)],
)
async def test_requests_of_one_customer_wait_for_each_other_whatever_the_credential(
    method: str, other: str, waits: bool
) -> None:
    process = Process()
    first = process.connection(method=method, principal=principal("user"))
    second = process.connection(method=other, principal=principal("api_key"))
    foreign = process.connection(method=other, principal=principal("user", "cust_2"))
    assert await second_waits(limits.place_of_customer, first, second) is waits
    assert not await second_waits(limits.place_of_customer, first, foreign)


@pytest.mark.parametrize("kind", ["runtime", "agent", "admin"])
async def test_requests_of_other_callers_do_not_wait_for_each_other(kind: str) -> None:
    process = Process()
    both = [process.connection(method="POST", principal=principal(kind)) for _ in range(2)]
    assert not await second_waits(limits.place_of_customer, *both)
