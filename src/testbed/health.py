"""`invoke health-check`: one row for each part, and whether all parts are healthy."""

import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import requests
from rich import box
from rich.markup import escape
from rich.table import Table

from testbed.backends import backend_of
from testbed.environment import Environment
from testbed.fingerprint import version as checked_out_version
from testbed.parts import HOST, Part
from testbed.probes import ProbeError, probe_of
from testbed.supervision import Exit, ProcessState, recent

MAX_RESTARTS = 2
"""More restarts than this within a minute count as a crash loop."""
STABLE_AFTER = timedelta(seconds=5)
"""A restarted part counts as healthy only after this time."""
CONNECT_SECONDS = 1.0


@dataclass(frozen=True)
class Row:
    """The health of one part.

    `latency_ms` is the duration of the whole check, `restarts` the number of restarts within the last minute.
    """

    name: str
    address: str
    status: Literal["healthy", "unhealthy"]
    version: str
    latency_ms: float | None
    restarts: int
    note: str


@dataclass(frozen=True)
class Snapshot:
    """The backend's view of all processes at one moment, shared by all rows."""

    states: Mapping[str, ProcessState]
    exits: list[Exit]

    @classmethod
    def take(cls, environment: Environment) -> "Snapshot":
        """Ask the environment's backend."""
        backend = backend_of(environment)
        return cls(backend.states(), backend.exits(datetime.now(UTC) - timedelta(minutes=1)))

    def problem(self, part: Part, now: datetime) -> str | None:
        """Why the part is unhealthy even if its probe succeeds, or None."""
        state = self.states.get(part.program)
        if state is None:
            return "not supervised: `invoke start-test-env` starts it"
        ended = recent(self.exits, part.program, now)
        how = f" ({ended[-1].how})" if ended else ""
        if state.state not in ("RUNNING", "STARTING"):
            return f"{state.state.lower()}{how}"
        if len(ended) > MAX_RESTARTS:
            return f"restarted {len(ended)} times in the last minute{how}"
        if ended and now - state.started_at < STABLE_AFTER:
            return f"was restarted {(now - state.started_at).total_seconds():.0f} s ago{how}"
        return None


def check(environment: Environment, part: Part, snapshot: Snapshot | None) -> Row:
    """Check one part. Without a snapshot only the part's own probe counts."""
    restarts = 0
    problem = None
    if snapshot is not None:
        now = datetime.now(UTC)
        restarts = len(recent(snapshot.exits, part.program, now))
        problem = snapshot.problem(part, now)
    address = f"{HOST}:{environment.ports[part.name]}" if part.port else "-"
    expected = probe_errors()
    started = time.perf_counter()
    try:
        if part.port:
            # A plain connection fails faster than a client library, and with the same message for every part.
            socket.create_connection((HOST, environment.ports[part.name]), CONNECT_SECONDS).close()
        result = probe_of(part)(environment, part)
    except ConnectionRefusedError:
        return Row(part.name, address, "unhealthy", "", None, restarts, problem or "connection refused")
    except expected as error:
        note = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return Row(part.name, address, "unhealthy", "", None, restarts, problem or note[:300])
    latency = round((time.perf_counter() - started) * 1000, 1)
    if problem:
        return Row(part.name, address, "unhealthy", result.version, latency, restarts, problem)
    return Row(part.name, address, "healthy", result.version, latency, restarts, result.note)


def probe_errors() -> tuple[type[Exception], ...]:
    """The exceptions of a failed probe. The call imports the stores' clients, so make it before measuring time."""
    import psycopg
    import redis

    return (ProbeError, OSError, ValueError, KeyError, requests.RequestException, psycopg.Error, redis.RedisError)


def check_all(environment: Environment) -> list[Row]:
    """Check all parts concurrently; rows in the order of PARTS. Services must run the checked-out version."""
    environment = replace(environment, version=checked_out_version())
    snapshot = Snapshot.take(environment)
    with ThreadPoolExecutor(max_workers=len(environment.parts)) as pool:
        return list(pool.map(lambda part: check(environment, part, snapshot), environment.parts))


def all_healthy(rows: list[Row]) -> bool:
    """Whether every row is healthy."""
    return all(row.status == "healthy" for row in rows)


def document(environment: Environment, rows: list[Row]) -> dict[str, Any]:
    """The rows as JSON."""
    return {"name": environment.name, "healthy": all_healthy(rows), "parts": [asdict(row) for row in rows]}


def table(rows: list[Row], title: str) -> Table:
    """The rows as a table."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("part", "address", "status", "version"):
        made.add_column(heading, no_wrap=True)
    made.add_column("latency", justify="right", no_wrap=True)
    made.add_column("restarts", justify="right")
    made.add_column("note")
    for row in rows:
        colour = "green" if row.status == "healthy" else "red"
        latency = "" if row.latency_ms is None else f"{row.latency_ms:.0f} ms"
        status = f"[{colour}]{row.status}[/]"
        made.add_row(row.name, row.address, status, row.version, latency, str(row.restarts), escape(row.note))
    return made
