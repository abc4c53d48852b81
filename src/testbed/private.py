"""A private platform for fault injection: own services, agents and runtime on another environment's engines and cloud.

It shares the servers of that environment (its host), but no data: its databases, keys and collection have a namespace
of their own, and are removed with it if the host is running.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import requests

from testbed import environment as environments
from testbed import loopback
from testbed.backends import backend_of
from testbed.environment import Environment, SetupError
from testbed.parts import HOST, PARTS
from testbed.waiting import stretched

if TYPE_CHECKING:
    import psycopg  # imported where it is used, because most of the testbed does not need it

CALL_SECONDS = 10.0
NOT_STARTED = ""
"""The supervisor's socket until there is one."""


def describe(
    name: str,
    over: Environment,
    through: Mapping[str, int] | None = None,
    changed: Mapping[str, str] | None = None,
    *,
    agents: bool = True,
    coverage: bool | None = None,
) -> Environment:
    """The description of a private platform on the host ``over``, to be saved and then started by its name.

    ``through`` maps parts of the host to other ports, such as those of proxies. ``changed`` are settings of services,
    such as ``{"OPTIMIZATION_DEADLINE_SECONDS": "5"}``. Without ``agents`` it has none but those that a test registers.
    Coverage of its services counts for the host, and is measured if the host's is (None).
    """
    made = environments.create(
        name,
        replace(over.settings, coverage=over.settings.coverage if coverage is None else coverage),
        None,
        NOT_STARTED,
    )
    private = replace(
        made,
        over=over.name,
        namespace=f"optiinfra_{name.replace('-', '_')}",
        credentials={**made.credentials, **{secret: over.credentials[secret] for secret in environments.STORE_SECRETS}},
        changed=dict(changed or {}),
        agents=agents,
        proxies=tuple(through or ()),
    )
    own = {part.name: made.ports[part.name] for part in private.parts if part.port}
    borrowed = {part.name: over.ports[part.name] for part in PARTS if part.port and not part.is_platform}
    return replace(private, ports={**borrowed, **(through or {}), **own})


def prepare(private: Environment) -> None:
    """Create its database; the services create everything else."""
    with _postgresql(_host(private)) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [private.namespace]).fetchone()
        if known is None:
            connection.execute(f'CREATE DATABASE "{private.namespace}"')


def drop(private: Environment, say: Callable[[str], None]) -> None:
    """Remove its data from the engines of its host, if the host is running.

    Otherwise other programs may listen on those ports, and the data stays until the host is cleaned. Engines that fail
    are reported to ``say`` and raise nothing.
    """
    import psycopg
    from redis import RedisError

    try:
        host = environments.read(private.over or "")
    except (SetupError, ValueError) as error:
        say(f"data of {private.name!r} stays in the engines of {private.over!r}: {error}")
        return
    if host is None:  # then the data is removed, too
        return
    if not backend_of(host).is_running:
        say(f"data of {private.name!r} stays in the engines of {host.name!r}, which is not running")
        return
    for drop_from in (_drop_postgresql, _drop_clickhouse, _drop_qdrant, _drop_redis):
        try:
            drop_from(host, private)
        except (psycopg.Error, requests.RequestException, RedisError) as error:
            engine = drop_from.__name__.removeprefix("_drop_")
            say(f"data of {private.name!r} could not be removed from {engine} of {host.name!r}: {error}")


def _host(private: Environment) -> Environment:
    host = environments.load(private.over or "")
    if host is None:
        raise SetupError(f"environment {private.over!r}, which {private.name!r} needs, is gone")
    return host


def _postgresql(host: Environment) -> "psycopg.Connection[tuple[Any, ...]]":
    import psycopg

    return psycopg.connect(
        host=HOST,
        port=host.ports["postgresql"],
        user="optiinfra",
        dbname="optiinfra",
        password=host.credentials["postgresql_password"],
        connect_timeout=int(stretched(CALL_SECONDS)),
        options=f"-c statement_timeout={stretched(CALL_SECONDS):.0f}s",
        autocommit=True,
    )


def _drop_postgresql(host: Environment, private: Environment) -> None:
    with _postgresql(host) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{private.namespace}" WITH (FORCE)')


def _drop_clickhouse(host: Environment, private: Environment) -> None:
    headers = {"X-ClickHouse-User": "optiinfra", "X-ClickHouse-Key": host.credentials["clickhouse_password"]}
    statement = f"DROP DATABASE IF EXISTS {private.namespace} SYNC"
    _call("POST", host.url("clickhouse"), data=statement.encode(), headers=headers)


def _drop_qdrant(host: Environment, private: Environment) -> None:
    headers = {"api-key": host.credentials["qdrant_api_key"]}
    _call("DELETE", f"{host.url('qdrant')}/collections/{private.collection}", headers=headers)


def _drop_redis(host: Environment, private: Environment) -> None:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    with Redis(
        host=HOST,
        port=host.ports["redis"],
        password=host.credentials["redis_password"],
        socket_timeout=stretched(CALL_SECONDS),
        retry=Retry(NoBackoff(), 0),  # its default is to retry for minutes
    ) as client:
        for key in client.scan_iter(f"{private.namespace}:*"):
            client.delete(key)


def _call(method: str, url: str, **arguments: object) -> None:
    with loopback.session() as session:
        session.request(method, url, timeout=stretched(CALL_SECONDS), **arguments).raise_for_status()  # type: ignore[arg-type]
