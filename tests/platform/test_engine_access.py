"""No engine of an environment serves callers without a credential, or web pages in the user's browser."""

from typing import Any

import httpx
import psycopg
import pytest
import redis

from testbed.waiting import stretched


def test_postgresql_refuses_a_connection_without_or_with_a_wrong_password(environment: dict[str, Any]) -> None:
    for password in ("", "wrong"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(
                host="127.0.0.1",
                port=environment["ports"]["postgresql"],
                user="optiinfra",
                dbname="optiinfra",
                password=password,
                passfile="/dev/null",
            )


def test_redis_refuses_commands_without_or_with_a_wrong_password(environment: dict[str, Any]) -> None:
    for password in (None, "wrong"):
        with (
            redis.Redis(port=environment["ports"]["redis"], password=password) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.keys()


@pytest.mark.parametrize(
    ("part", "method", "path"),
    [("clickhouse", "POST", "/?query=SELECT+1"), ("clickhouse", "GET", "/play"), ("qdrant", "GET", "/collections")],
)
def test_store_refuses_requests_without_or_with_a_wrong_credential(
    environment: dict[str, Any], part: str, method: str, path: str
) -> None:
    wrong = {"Authorization": "Basic ZGVmYXVsdDo=", "api-key": "wrong"}
    for headers in ({}, wrong, {"X-ClickHouse-User": "default"}):
        answer = httpx.request(method, environment["urls"][part] + path, headers=headers, timeout=stretched(10))
        assert answer.status_code == 401, answer.text


@pytest.mark.parametrize("headers", [{"Origin": "https://page.example"}, {"Host": "rebound.example"}])
@pytest.mark.parametrize(
    ("part", "path"),
    [("localstack", "/moto-api/"), ("inference-fleet", "/health"), ("cloud-front", "/_front/health")],
)
def test_simulation_refuses_web_pages(
    environment: dict[str, Any], part: str, path: str, headers: dict[str, str]
) -> None:
    url = environment["urls"][part] + path
    assert httpx.get(url, timeout=stretched(10)).status_code == 200
    assert httpx.get(url, headers=headers, timeout=stretched(10)).status_code == 403
