"""Redis as the platform uses it: redis-py."""

from collections.abc import Iterator

import pytest
from redis import AuthenticationError, Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from testbed.waiting import wait_until
from tests.contract.engine import Engine, running


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running("redis") as started:
        yield started


@pytest.fixture
def client(engine: Engine) -> Iterator[Redis]:
    with Redis.from_url(engine.environment.urls()["redis"], decode_responses=True) as made:
        yield made


def test_key_expires(client: Redis) -> None:
    client.set("presence", "here", px=60_000)
    assert 0 < client.pttl("presence") <= 60_000
    assert client.get("presence") == "here"
    client.set("presence", "here", px=20)
    wait_until(lambda: client.get("presence"), "the key to expire", 5, accept=lambda value: value is None)


def test_published_message_reaches_a_subscriber(client: Redis) -> None:
    with client.pubsub(ignore_subscribe_messages=True) as subscription:  # type: ignore[no-untyped-call]
        subscription.subscribe("wake-up")
        subscription.get_message(timeout=2)
        assert client.publish("wake-up", "7") == 1
        message = subscription.get_message(timeout=2)
    assert message is not None
    assert message["data"] == "7"


def test_wrong_password_is_refused(engine: Engine) -> None:
    once = Retry(NoBackoff(), 0)
    with Redis(port=engine.port, password="wrong", retry=once) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()


def test_keys_survive_a_kill(engine: Engine, client: Redis) -> None:
    client.set("kept", "yes")
    engine.kill()
    engine.start()
    assert client.get("kept") == "yes"
