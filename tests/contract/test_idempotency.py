"""Requests under idempotency keys: of those with one key, one changes something."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import cast

import pytest
from sqlalchemy import delete, select, update

from optiinfra.api.common import now
from optiinfra.api.credentials import IssuedApiKey, NewApiKey
from optiinfra.api.customers import Started
from optiinfra.orchestrator import idempotency
from optiinfra.orchestrator.credentials import api_keys
from optiinfra.orchestrator.errors import Invalid
from optiinfra.orchestrator.idempotency import KeyedRequest, Replayed
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database
from tests.contract.conftest import CUSTOMER

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("customer")]

BODY = NewApiKey(name="x", scope="read")


@pytest.fixture(autouse=True)
async def _no_keys(database: Database) -> None:
    """Those of agents belong to no customer, and would stay."""
    async with database.transaction() as session:
        await session.execute(delete(models.IdempotencyKey))


def keyed(key: str, body: bytes = b"{}") -> KeyedRequest:
    return KeyedRequest(key, CUSTOMER, CUSTOMER, "POST /keys", idempotency.digest_of(body), 201)


async def issue(database: Database, request: KeyedRequest | None) -> IssuedApiKey:
    platform = cast("Platform", SimpleNamespace(database=database))
    return await api_keys.issue(platform, request.customer_id or "" if request else CUSTOMER, BODY, request)


async def issued(database: Database) -> list[str]:
    """The ids of all API keys."""
    async with database.transaction() as session:
        return list(await session.scalars(select(models.ApiKey.id)))


async def stored(database: Database) -> list[tuple[str, str | None]]:
    """The stored idempotency keys, with whose they are."""
    table = models.IdempotencyKey
    async with database.transaction() as session:
        return [(row.key, row.customer_id) for row in await session.execute(select(table.key, table.customer_id))]


async def answer_once(database: Database, request: KeyedRequest) -> None:
    async with database.transaction() as session:
        await idempotency.replay(session, request)
        await idempotency.remember(session, request, Started())


async def connect(database: Database, count: int) -> None:
    """Have so many connections open, so that none of as many requests is ahead by the time that connecting takes."""
    all_connected = asyncio.Barrier(count)

    async def use() -> None:
        async with database.transaction() as session:
            await session.execute(select(1))
            await all_connected.wait()

    await asyncio.gather(*(use() for _ in range(count)))


async def test_simultaneous_requests_with_one_key_make_one_change(database: Database) -> None:
    await connect(database, 20)
    same = (issue(database, keyed("same")) for _ in range(20))
    others = (issue(database, keyed(f"own {number}")) for number in range(3))
    answers = await asyncio.gather(*same, *others, return_exceptions=True)
    made = [answer for answer in answers if isinstance(answer, IssuedApiKey)]
    replayed = [answer for answer in answers if isinstance(answer, Replayed)]
    assert (len(made), len(replayed)) == (4, 19)
    assert sorted(await issued(database)) == sorted(one.key_id for one in made)
    (first,) = [one for one in made if all(again.issued == {"key_id": one.key_id} for again in replayed)]
    assert {again.answer for again in replayed} == {None}, "the secret is stored nowhere"
    async with database.transaction() as session:
        rows = (await session.scalars(select(models.IdempotencyKey))).all()
    assert first.api_key not in repr([vars(row) for row in rows])


async def test_key_is_bound_to_its_body_its_caller_and_its_request(database: Database) -> None:
    await answer_once(database, keyed("key"))
    with pytest.raises(Invalid, match="used with another body") as refused:
        await answer_once(database, keyed("key", b"[]"))
    assert refused.value.code == "idempotency_key_reused"
    for other in (
        replace(keyed("key", b"[]"), caller="cust_2", customer_id=None),
        replace(keyed("key", b"[]"), request="POST /others"),
        keyed("another", b"[]"),
    ):
        await answer_once(database, other)
    for _ in range(2):
        with pytest.raises(Replayed) as earlier:
            await answer_once(database, keyed("key"))
        assert (earlier.value.status, earlier.value.answer) == (201, '{"status":"started"}')
        assert earlier.value.issued is None


async def test_change_that_fails_uses_no_key_up(database: Database) -> None:
    request = keyed("key")

    async def fail() -> None:
        async with database.transaction() as session:
            await idempotency.replay(session, request)
            await idempotency.remember(session, request, Started())
            raise RuntimeError("no change")

    with pytest.raises(RuntimeError, match="no change"):
        await fail()
    assert await stored(database) == []
    await answer_once(database, request)
    assert await stored(database) == [("key", CUSTOMER)]


async def test_request_that_waits_is_carried_out_when_the_first_one_fails(database: Database) -> None:
    request, entered, leave = keyed("key"), asyncio.Event(), asyncio.Event()

    async def fail() -> None:
        async with database.transaction() as session:
            await idempotency.replay(session, request)
            entered.set()
            await leave.wait()
            raise RuntimeError("the first one fails")

    first = asyncio.create_task(fail())
    await entered.wait()
    second = asyncio.create_task(issue(database, request))
    done, _ = await asyncio.wait((second,), timeout=0.3)
    assert done == set(), "it does not wait"
    leave.set()
    with pytest.raises(RuntimeError, match="the first one fails"):
        await first
    made = await second
    assert await issued(database) == [made.key_id]


async def test_request_without_a_key_is_carried_out_each_time(database: Database) -> None:
    made = [(await issue(database, None)).key_id for _ in range(2)]
    assert sorted(await issued(database)) == sorted(made)
    assert await stored(database) == []


async def test_keys_are_forgotten_after_a_day_and_with_their_customer(database: Database) -> None:
    table, limit, minute = models.IdempotencyKey, now() - idempotency.KEYS_KEPT, timedelta(minutes=1)
    agents = replace(keyed("an agent's"), caller="agent:agent_1", customer_id=None)
    for request, created in ((keyed("old"), limit - minute), (keyed("kept"), limit + minute), (agents, now())):
        await answer_once(database, request)
        async with database.transaction() as session:
            await session.execute(update(table).where(table.key == request.key).values(created_at=created))
    await idempotency.forget_old_keys(database)
    assert sorted(await stored(database)) == [("an agent's", None), ("kept", CUSTOMER)]
    async with database.transaction() as session:
        await session.execute(delete(models.Customer))
    assert await stored(database) == [("an agent's", None)]
