"""Which client errors mean that a store is unavailable, and what API callers are told of them."""

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
from optiinfra.stores.errors import OutageReason, StoreUnavailable, translate_errors
from optiinfra.stores.postgres import database

SECRET = "10.1.2.3 user optiinfra SELECT secret"


def sql_error(kind: type[DBAPIError], cause: Exception, *, disconnected: bool = False) -> DBAPIError:
    return kind(SECRET, {"secret": 1}, cause, connection_invalidated=disconnected)


def http_error(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://10.1.2.3/secret")
    return httpx.HTTPStatusError(SECRET, request=request, response=httpx.Response(status, request=request))


def qdrant_response(status: int) -> UnexpectedResponse:
    return UnexpectedResponse(status, SECRET, SECRET.encode(), Headers())


def clickhouse_error(text: str, code: int | None = None) -> Exception:
    return clickhouse_errors.DatabaseError(f"{text} {SECRET}", code=code)


def raise_in_qdrant_client(error: Exception) -> Callable[[], Any]:
    def raise_it() -> None:
        with qdrant.translate_client_errors():
            raise error

    return raise_it


def raise_in(reason: OutageReason, error: Exception) -> Callable[[], Any]:
    def raise_it() -> None:
        with translate_errors("Store", reason):
            raise error

    return raise_it


OUTAGES = {
    "OperationalError": raise_in(
        database.outage_reason, sql_error(OperationalError, psycopg_errors.OperationalError(SECRET))
    ),
    "AdminShutdown": raise_in(
        database.outage_reason, sql_error(OperationalError, psycopg_errors.AdminShutdown(SECRET))
    ),
    "IdleInTransactionSessionTimeout": raise_in(
        database.outage_reason,
        sql_error(DBAPIError, psycopg_errors.IdleInTransactionSessionTimeout(SECRET), disconnected=True),
    ),
    "no connection is free": raise_in(database.outage_reason, PoolTimeout(SECRET)),
    "StreamFailureError": raise_in(clickhouse.outage_reason, clickhouse_errors.StreamFailureError(SECRET)),
    "MEMORY_LIMIT_EXCEEDED": raise_in(clickhouse.outage_reason, clickhouse_error("code: 241", 241)),
    "ABORTED": raise_in(clickhouse.outage_reason, clickhouse_error("code: 236", 236)),
    "HTTP 502": raise_in(clickhouse.outage_reason, clickhouse_error("HTTP driver received HTTP status 502")),
    "ConnectError": raise_in_qdrant_client(ResponseHandlingException(httpx.ConnectError(SECRET))),
    "HTTP 500": raise_in_qdrant_client(qdrant_response(500)),
    "HTTP 429": raise_in(qdrant.http_outage_reason, http_error(429)),
    "HTTP 503": raise_in(qdrant.http_outage_reason, http_error(503)),
    "ConnectionError": raise_in(redis.outage_reason, RedisConnectionError(SECRET)),
}
PERMANENT = {
    "SQL syntax error": raise_in(database.outage_reason, sql_error(DBAPIError, psycopg_errors.SyntaxError(SECRET))),
    "ClickHouse syntax error": raise_in(clickhouse.outage_reason, clickhouse_error("code: 62", 62)),
    "ClickHouse privilege missing": raise_in(clickhouse.outage_reason, clickhouse_error("code: 497", 497)),
    "ClickHouse HTTP 404": raise_in(clickhouse.outage_reason, clickhouse_error("HTTP driver received HTTP status 404")),
    "Qdrant HTTP 401": raise_in_qdrant_client(qdrant_response(401)),
    "Qdrant HTTP 400": raise_in_qdrant_client(qdrant_response(400)),
    "Qdrant HTTP 501": raise_in_qdrant_client(qdrant_response(501)),
    "Qdrant REST HTTP 403": raise_in(qdrant.http_outage_reason, http_error(403)),
    "Qdrant answer unreadable": raise_in_qdrant_client(ResponseHandlingException(ValueError(SECRET))),
}


@pytest.mark.parametrize("reason", OUTAGES)
def test_translate_errors_on_outage_names_store_and_reason_only(reason: str) -> None:
    with pytest.raises(StoreUnavailable, match=rf"^\w+ does not answer \({re.escape(reason)}\)$"):
        OUTAGES[reason]()


@pytest.mark.parametrize("case", PERMANENT)
def test_translate_errors_on_permanent_error_lets_it_through(case: str) -> None:
    with pytest.raises(Exception, match=re.escape(SECRET)) as raised:
        PERMANENT[case]()
    assert not isinstance(raised.value, StoreUnavailable)
