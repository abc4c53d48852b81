"""A platform of one's own, to break: services, agents and runtime over the engines, cloud and fleet of an environment.

It shares servers with that environment and nothing in them: databases, keys and the collection are its own, by its
namespace, and go with it when those servers run.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import requests

from testbed import environment as environments
from testbed import loopback
from testbed.environment import Environment, SetupError
from testbed.parts import HOST
from testbed.supervision import Supervisor
from testbed.waiting import stretched

if TYPE_CHECKING:
    import psycopg  # loaded where it is used: most of the testbed does without

CALL_SECONDS = 10.0
NOT_STARTED = ""
"""In place of a supervisor's socket, until there is one."""


def describe(
    name: str, over: Environment, through: Mapping[str, int] | None = None, changed: Mapping[str, str] | None = None
) -> Environment:
    """A platform over that environment; saved and started by its name, it stays private however often it is started.

    ``through`` gives ports to reach a borrowed part at instead of its own (a proxy's), ``changed`` settings of the
    services, such as ``{"OPTIMIZATION_DEADLINE_SECONDS": "5"}``.
    """
    made = environments.create(name, replace(over.settings, coverage=False), None, NOT_STARTED)
    private = replace(
        made,
        over=over.name,
        namespace=f"optiinfra_{name.replace('-', '_')}",
        credentials={**made.credentials, **{word: over.credentials[word] for word in environments.STORE_SECRETS}},
        changed=dict(changed or {}),
    )
    own = {part.name: made.ports[part.name] for part in private.parts if part.port}
    return replace(private, ports={**over.ports, **(through or {}), **own})


def prepare(private: Environment) -> None:
    """Create its database; the services create everything else."""
    with _postgresql(_host(private)) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [private.namespace]).fetchone()
        if known is None:
            connection.execute(f'CREATE DATABASE "{private.namespace}"')


def drop(private: Environment, say: Callable[[str], None]) -> None:
    """Remove what is its own in the engines, where those run under their host's own supervisor.

    Elsewhere somebody else may listen at their ports: what it has there stays until the host is cleaned. An engine that
    does not do it is named to ``say``, and hinders nobody.
    """
    import psycopg
    from redis import RedisError

    try:
        host = environments.read(private.over or "")
    except (SetupError, ValueError) as error:
        say(f"what {private.name!r} has in the engines of {private.over!r} stays there: {error}")
        return
    if host is None:  # then its data are gone, too
        return
    if Supervisor(host).pid is None:
        say(f"what {private.name!r} has in the engines of {host.name!r}, which is not running, stays there")
        return
    for drop_from in (_drop_postgresql, _drop_clickhouse, _drop_qdrant, _drop_redis):
        try:
            drop_from(host, private)
        except (psycopg.Error, requests.RequestException, RedisError) as error:
            engine = drop_from.__name__.removeprefix("_drop_")
            say(f"what {private.name!r} has in {engine} of {host.name!r} could not be removed: {error}")


def _host(private: Environment) -> Environment:
    host = environments.load(private.over or "")
    if host is None:
        raise SetupError(f"environment {private.over!r}, which {private.name!r} stands on, is gone")
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
        retry=Retry(NoBackoff(), 0),  # by itself it would try for minutes
    ) as client:
        for key in client.scan_iter(f"{private.namespace}:*"):
            client.delete(key)


def _call(method: str, url: str, **arguments: object) -> None:
    with loopback.session() as session:
        session.request(method, url, timeout=stretched(CALL_SECONDS), **arguments).raise_for_status()  # type: ignore[arg-type]
