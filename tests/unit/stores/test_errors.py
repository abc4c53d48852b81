"""Which errors of their clients mean that a store is away, and what strangers are told of them."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from clickhouse_connect.driver import exceptions as clickhouse_errors
from httpx import Headers
from psycopg import errors as psycopg_errors
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from optiinfra.stores import clickhouse, qdrant, redis
from optiinfra.stores.errors import Reason, StoreUnavailable, named
from optiinfra.stores.postgres import database

SECRET = "10.1.2.3 user optiinfra SELECT secret"


def sql(kind: type[DBAPIError], cause: Exception, *, ended: bool = False) -> DBAPIError:
    return kind(SECRET, {"secret": 1}, cause, connection_invalidated=ended)


def http(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://10.1.2.3/secret")
    return httpx.HTTPStatusError(SECRET, request=request, response=httpx.Response(status, request=request))


def unexpected(status: int) -> UnexpectedResponse:
    return UnexpectedResponse(status, SECRET, SECRET.encode(), Headers())


def clickhouse_says(text: str, code: int | None = None) -> Exception:
    return clickhouse_errors.DatabaseError(f"{text} {SECRET}", code=code)


def of_qdrants_client(error: Exception) -> Callable[[], Any]:
    def raise_it() -> None:
        with qdrant._away():
            raise error

    return raise_it


def of(reason: Reason, error: Exception) -> Callable[[], Any]:
    def raise_it() -> None:
        with named("It", reason):
            raise error

    return raise_it


AWAY = {
    "OperationalError": of(database._away, sql(OperationalError, psycopg_errors.OperationalError(SECRET))),
    "AdminShutdown": of(database._away, sql(OperationalError, psycopg_errors.AdminShutdown(SECRET))),
    "IdleInTransactionSessionTimeout": of(
        database._away, sql(DBAPIError, psycopg_errors.IdleInTransactionSessionTimeout(SECRET), ended=True)
    ),
    "no connection is free": of(database._away, PoolTimeout(SECRET)),
    "StreamFailureError": of(clickhouse._away, clickhouse_errors.StreamFailureError(SECRET)),
    "MEMORY_LIMIT_EXCEEDED": of(clickhouse._away, clickhouse_says("code: 241", 241)),
    "ABORTED": of(clickhouse._away, clickhouse_says("code: 236", 236)),
    "HTTP 502": of(clickhouse._away, clickhouse_says("HTTP driver received HTTP status 502")),
    "ConnectError": of_qdrants_client(ResponseHandlingException(httpx.ConnectError(SECRET))),
    "HTTP 500": of_qdrants_client(unexpected(500)),
    "HTTP 429": of(qdrant._no_answer, http(429)),
    "HTTP 503": of(qdrant._no_answer, http(503)),
    "ConnectionError": of(redis._away, RedisConnectionError(SECRET)),
}
WRONG = {
    "a statement": of(database._away, sql(DBAPIError, psycopg_errors.SyntaxError(SECRET))),
    "a query": of(clickhouse._away, clickhouse_says("code: 62", 62)),
    "no privilege": of(clickhouse._away, clickhouse_says("code: 497", 497)),
    "no such page": of(clickhouse._away, clickhouse_says("HTTP driver received HTTP status 404")),
    "a key": of_qdrants_client(unexpected(401)),
    "a vector": of_qdrants_client(unexpected(400)),
    "a question": of_qdrants_client(unexpected(501)),
    "the key of the plain way": of(qdrant._no_answer, http(403)),
    "an answer": of_qdrants_client(ResponseHandlingException(ValueError(SECRET))),
}


@pytest.mark.parametrize("why", AWAY)
def test_a_store_that_is_away_is_named_to_strangers_with_no_more_than_the_kind_of_error(why: str) -> None:
    with pytest.raises(StoreUnavailable, match=rf"^\w+ does not answer \({re.escape(why)}\)$"):
        AWAY[why]()


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_and_stays_so_is_no_outage(what: str) -> None:
    with pytest.raises(Exception, match=re.escape(SECRET)) as raised:
        WRONG[what]()
    assert not isinstance(raised.value, StoreUnavailable)
