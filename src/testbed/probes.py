"""Health probes, one for each kind of part. A probe returns a version and a note, or raises.

A store's probe writes and reads. An agent needs a recent heartbeat in the orchestrator's registry. A service must run
the version that the environment was started from.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import requests

from testbed import loopback
from testbed.environment import Environment
from testbed.parts import HOST, Part
from testbed.waiting import stretched

REQUEST_SECONDS = 5.0
HEARTBEAT_SECONDS = 15.0
HEALTH_COLLECTION = "testbed_health"


class ProbeError(Exception):
    """The part responded, but is not healthy."""


@dataclass(frozen=True)
class ProbeResult:
    """The version of a healthy part, and a note."""

    version: str
    note: str = ""


Probe = Callable[[Environment, Part], ProbeResult]


def _request(method: str, url: str, **arguments: Any) -> requests.Response:
    with loopback.session() as session:
        answer = session.request(method, url, timeout=stretched(REQUEST_SECONDS), **arguments)
    if not answer.ok:
        raise ProbeError(f"{method} {url} answered {answer.status_code}: {answer.text.strip()[:200]}")
    return answer


def postgresql(environment: Environment, _part: Part) -> ProbeResult:
    """Write a row and read it back with the platform's role."""
    import psycopg

    with psycopg.connect(
        host=HOST,
        port=environment.ports["postgresql"],
        user="optiinfra",
        dbname="optiinfra",
        password=environment.credentials["postgresql_password"],
        connect_timeout=int(stretched(REQUEST_SECONDS)),
    ) as connection:
        connection.execute("CREATE TEMPORARY TABLE health (word text) ON COMMIT DROP")
        connection.execute("INSERT INTO health VALUES ('written')")
        row = connection.execute("SELECT word, current_setting('server_version') FROM health").fetchone()
    if row is None or row[0] != "written":
        raise ProbeError(f"wrote a row and read {row!r}")
    return ProbeResult(str(row[1]))


def redis(environment: Environment, _part: Part) -> ProbeResult:
    """Set a key with an expiry and get it back."""
    from redis import Redis

    with Redis(
        host=HOST,
        port=environment.ports["redis"],
        password=environment.credentials["redis_password"],
        socket_timeout=stretched(REQUEST_SECONDS),
        decode_responses=True,
    ) as client:
        client.set("testbed:health", "written", ex=60)
        seen = client.get("testbed:health")
        info: Any = client.info("server")
    if seen != "written":
        raise ProbeError(f"wrote a key and read {seen!r}")
    valkey = info.get("valkey_version")
    return ProbeResult(f"valkey {valkey}" if valkey else info["redis_version"])


def clickhouse(environment: Environment, _part: Part) -> ProbeResult:
    """Insert a row and count it with the platform's account."""
    url = environment.url("clickhouse")
    headers = {
        "X-ClickHouse-User": "optiinfra",
        "X-ClickHouse-Key": environment.credentials["clickhouse_password"],
    }

    def query(statement: str) -> str:
        return _request("POST", url, data=statement.encode(), headers=headers).text.strip()

    query("CREATE DATABASE IF NOT EXISTS testbed")
    query(
        "CREATE TABLE IF NOT EXISTS testbed.health (at DateTime64(6)) ENGINE = MergeTree ORDER BY at"
        " TTL toDateTime(at) + INTERVAL 1 HOUR"
    )
    at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    # The literal is our own clock's, so there is nothing to inject.
    query(f"INSERT INTO testbed.health VALUES ('{at}')")  # noqa: S608
    count, version = query(f"SELECT count(), version() FROM testbed.health WHERE at = '{at}'").split("\t")  # noqa: S608
    if count != "1":
        raise ProbeError(f"wrote one row and counted {count}")
    return ProbeResult(version)


def qdrant(environment: Environment, _part: Part) -> ProbeResult:
    """Upsert a point and retrieve it."""
    url = environment.url("qdrant")
    headers = {"api-key": environment.credentials["qdrant_api_key"]}
    collection = f"{url}/collections/{HEALTH_COLLECTION}"
    if not _request("GET", f"{collection}/exists", headers=headers).json()["result"]["exists"]:
        _request("PUT", collection, headers=headers, json={"vectors": {"size": 1, "distance": "Dot"}})
    word = datetime.now(UTC).isoformat()
    point = {"id": 1, "vector": [1.0], "payload": {"at": word}}
    _request("PUT", f"{collection}/points?wait=true", headers=headers, json={"points": [point]})
    found = _request("POST", f"{collection}/points", headers=headers, json={"ids": [1]}).json()["result"]
    if [each["payload"]["at"] for each in found] != [word]:
        raise ProbeError(f"wrote point 1 at {word} and read {found!r}")
    answer = _request("GET", url).json()
    embedded = answer.get("commit") == "embedded"
    return ProbeResult(answer["version"], "Qdrant's engine behind the testbed's own REST layer" if embedded else "")


def localstack(environment: Environment, _part: Part) -> ProbeResult:
    """Call STS and EC2 as an SDK would."""
    url = environment.url("localstack")

    def call(service: str, action: str, api: str) -> str:
        scope = f"Credential=test/20260101/us-east-1/{service}/aws4_request"
        headers = {
            "Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        return _request("POST", url, data=f"Action={action}&Version={api}", headers=headers).text

    for service, action, api, expected in (
        ("sts", "GetCallerIdentity", "2011-06-15", "<Arn>"),
        ("ec2", "DescribeRegions", "2016-11-15", "us-east-1"),
    ):
        answer = call(service, action, api)
        if expected not in answer:
            raise ProbeError(f"{action} answered without {expected}: {answer[:200]}")
    if environment.settings.backend == "embedded":
        from importlib.metadata import version

        return ProbeResult(f"moto {version('moto')}")
    return ProbeResult(str(_request("GET", f"{url}/_localstack/health").json()["version"]))


def service(environment: Environment, part: Part) -> ProbeResult:
    """`/health` reports healthy, and the expected version."""
    answer = _request("GET", environment.url(part.name) + part.health_path).json()
    if answer.get("status") != "healthy":
        raise ProbeError(f"health endpoint returned {answer!r}")
    _expect_version(environment, answer.get("version"))
    return ProbeResult(answer["version"])


def _expect_version(environment: Environment, found: object) -> None:
    if found != environment.version:
        raise ProbeError(f"runs version {found}, expected {environment.version}: stop and start the environment")


def agent(environment: Environment, part: Part) -> ProbeResult:
    """The service is healthy and has an active registration with a recent heartbeat."""
    result = service(environment, part)
    headers = {"Authorization": f"Bearer {environment.credentials['admin_token']}"}
    rows = _request("GET", environment.url("orchestrator") + "/orchestrator/agents", headers=headers).json()
    port = environment.address(part.name, inside=True).rpartition(":")[2]  # unique to the part
    own = [row for row in rows if row["agent_type"] == part.agent_type and row["base_url"].endswith(f":{port}")]
    active = [row for row in own if row["status"] == "active"]
    if not active:
        seen = ", ".join(sorted(row["status"] for row in own)) or "not registered"
        raise ProbeError(f"no active registration with the orchestrator ({seen})")
    newest = max(datetime.fromisoformat(row["last_heartbeat_at"]) for row in active)
    age = datetime.now(UTC) - newest
    if age > timedelta(seconds=stretched(HEARTBEAT_SECONDS)):
        raise ProbeError(f"last heartbeat {age.total_seconds():.0f} s ago")
    return ProbeResult(result.version, f"heartbeat {max(age.total_seconds(), 0):.0f} s ago")


def sandbox(environment: Environment, part: Part) -> ProbeResult:
    """The service is healthy; the note shows the speed of the fleet's clock."""
    result = service(environment, part)
    return ProbeResult(result.version, f"speed {environment.settings.fleet_speed:g}")


def runtime(environment: Environment, _part: Part) -> ProbeResult:
    """Its status file, which it rewrites every second, is recent."""
    file = environment.runtime_status
    if not file.exists():
        raise ProbeError(f"{file.name} is missing")
    status = json.loads(file.read_text())
    age = datetime.now(UTC) - datetime.fromisoformat(status["at"])
    if age > timedelta(seconds=stretched(REQUEST_SECONDS)):
        raise ProbeError(f"status file is {age.total_seconds():.0f} s old")
    _expect_version(environment, status["version"])
    customers = status["customers"]
    count = customers if isinstance(customers, int) else len(customers)
    return ProbeResult(status["version"], f"{count} customer{'' if count == 1 else 's'} connected")


PROBES: dict[str, Probe] = {
    "postgresql": postgresql,
    "clickhouse": clickhouse,
    "redis": redis,
    "qdrant": qdrant,
    "localstack": localstack,
    "service": service,
    "agent": agent,
    "sandbox": sandbox,
    "runtime": runtime,
}


def probe_of(part: Part) -> Probe:
    """The probe of this part, or else of its kind."""
    return PROBES.get(part.name) or PROBES[part.kind]
