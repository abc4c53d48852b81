"""Rate limits and lockouts in Redis, shared by processes, and without Redis."""

from collections.abc import AsyncIterator, Iterator

import pytest
from limits import parse
from redis.asyncio import Redis

from optiinfra.kit.ids import new_id
from optiinfra.kit.retries import retry_until_deadline
from optiinfra.stores import redis
from optiinfra.stores.rate_limits import Lockouts, RateLimits
from tests.contract.engine import Engine, running

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running("redis", "rate-limits") as started:
        yield started


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator["Redis"]:
    opened = redis.connect(engine.environment.urls()["redis"])
    yield opened
    await redis.close(opened)


@pytest.fixture
async def lost() -> AsyncIterator["Redis"]:
    """A client of a server that does not answer."""
    opened = redis.connect("redis://127.0.0.1:9")
    yield opened
    await redis.close(opened)


@pytest.fixture
def prefix() -> str:
    return new_id("acct")


async def test_hit_above_the_limit_says_how_long_to_wait(client: "Redis", prefix: str) -> None:
    limits, limit = RateLimits(client, prefix), parse("3/minute")
    assert [await limits.hit(limit, "sign-in", "a") for _ in range(3)] == [None] * 3
    seconds = await limits.hit(limit, "sign-in", "a")
    assert seconds is not None
    assert 1 <= seconds <= 60
    assert await limits.hit(limit, "sign-in", "b") is None
    assert await limits.hit(limit, "sign-up", "a") is None


@pytest.mark.parametrize("frequent", [False, True])
async def test_limit_is_shared_by_processes(client: "Redis", prefix: str, frequent: bool) -> None:
    limit = parse("20/minute")
    processes = [RateLimits(client, prefix), RateLimits(client, prefix)]
    hits = [process.hit_frequent if frequent else process.hit for process in processes]
    allowed = [await hits[number % 2](limit, "api", "a") is None for number in range(40)]
    assert sum(allowed) == 20


async def test_limit_without_redis_is_counted_by_the_process(lost: "Redis", prefix: str) -> None:
    limits, limit = RateLimits(lost, prefix), parse("2/minute")
    for hit in (limits.hit, limits.hit_frequent):
        assert [await hit(limit, hit.__name__, "a") is None for _ in range(3)] == [True, True, False]


async def test_failures_lock_a_key_for_twice_as_long_each_time(client: "Redis", prefix: str) -> None:
    lockouts = Lockouts(client, prefix, failures=2, first_seconds=100, most_seconds=350)
    await lockouts.fail("a")
    assert await lockouts.seconds_left("a") is None
    for expected in (100, 200, 350, 350):
        await lockouts.fail("a")
        left = await lockouts.seconds_left("a")
        assert left is not None
        assert expected - 60 < left <= expected
    assert await lockouts.seconds_left("b") is None
    await lockouts.succeed("a")
    assert await lockouts.seconds_left("a") is None
    await lockouts.fail("a")
    assert await lockouts.seconds_left("a") is None


async def test_lockout_ends(client: "Redis", prefix: str) -> None:
    lockouts = Lockouts(client, prefix, failures=1, first_seconds=0.2, most_seconds=100)

    async def ended() -> None:
        assert await lockouts.seconds_left("a") is None

    await lockouts.fail("a")
    assert await lockouts.seconds_left("a") == 1
    await retry_until_deadline(ended, "the lockout to end", 10.0)


async def test_lockout_without_redis_locks_nothing(lost: "Redis", prefix: str) -> None:
    lockouts = Lockouts(lost, prefix, failures=1, first_seconds=100, most_seconds=100)
    await lockouts.fail("a")
    assert await lockouts.seconds_left("a") is None
    await lockouts.succeed("a")
