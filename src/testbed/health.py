"""health-check: a row a part, and whether all of them are well."""

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

from testbed.environment import Environment
from testbed.fingerprint import version as checked_out_version
from testbed.parts import HOST, Part
from testbed.probes import ProbeError, probe_of
from testbed.supervision import Exit, ProcessState, Supervisor, recent

MAX_RESTARTS = 2
# A part that has just been brought back is not believed at once.
STABLE_AFTER = timedelta(seconds=5)
CONNECT_SECONDS = 1.0


@dataclass(frozen=True)
class Row:
    """A part's health; ``latency_ms`` is how long its whole check took, ``restarts`` those of the last minute."""

    name: str
    address: str
    status: Literal["healthy", "unhealthy"]
    version: str
    latency_ms: float | None
    restarts: int
    note: str


@dataclass(frozen=True)
class SupervisorSnapshot:
    """What the supervisor knows, taken once for all rows."""

    states: Mapping[str, ProcessState]
    exits: list[Exit]

    @classmethod
    def take(cls, environment: Environment) -> "SupervisorSnapshot":
        """Ask the supervisor of the environment."""
        supervisor = Supervisor(environment)
        return cls(supervisor.states(), supervisor.exits(datetime.now(UTC) - timedelta(minutes=1)))

    def problem(self, part: Part, now: datetime) -> str | None:
        """Why the part is not well whatever it answers, or None."""
        state = self.states.get(part.program)
        if state is None:
            return "no supervisor runs it: `invoke start-test-env`"
        ended = recent(self.exits, part.program, now)
        how = f" ({ended[-1].how})" if ended else ""
        if state.state not in ("RUNNING", "STARTING"):
            return f"{state.state.lower()}{how}"
        if len(ended) > MAX_RESTARTS:
            return f"restarted {len(ended)} times in the last minute{how}"
        if ended and now - state.started_at < STABLE_AFTER:
            return f"was restarted {(now - state.started_at).total_seconds():.0f} s ago{how}"
        return None


def check(environment: Environment, part: Part, supervised: SupervisorSnapshot | None) -> Row:
    """One part's row; without ``supervised`` only what the part itself answers counts."""
    restarts = 0
    trouble = None
    if supervised is not None:
        now = datetime.now(UTC)
        restarts = len(recent(supervised.exits, part.program, now))
        trouble = supervised.problem(part, now)
    address = f"{HOST}:{environment.ports[part.name]}" if part.port else "-"
    expected = probe_errors()
    started = time.perf_counter()
    try:
        if part.port:
            # Cheaper than a client library's own attempts, and with one message for all.
            socket.create_connection((HOST, environment.ports[part.name]), CONNECT_SECONDS).close()
        outcome = probe_of(part)(environment, part)
    except ConnectionRefusedError:
        return Row(part.name, address, "unhealthy", "", None, restarts, trouble or "nothing listens on its port")
    except expected as error:
        note = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return Row(part.name, address, "unhealthy", "", None, restarts, trouble or note[:300])
    latency = round((time.perf_counter() - started) * 1000, 1)
    if trouble:
        return Row(part.name, address, "unhealthy", outcome.version, latency, restarts, trouble)
    return Row(part.name, address, "healthy", outcome.version, latency, restarts, outcome.note)


def probe_errors() -> tuple[type[Exception], ...]:
    """What a probe may raise; loads the stores' clients, which is why it is called before anything is timed."""
    import psycopg
    import redis

    return (ProbeError, OSError, ValueError, KeyError, requests.RequestException, psycopg.Error, redis.RedisError)


def check_all(environment: Environment) -> list[Row]:
    """Every part's row, in the manifest's order, checked side by side; services must run what is checked out now."""
    environment = replace(environment, version=checked_out_version())
    supervised = SupervisorSnapshot.take(environment)
    with ThreadPoolExecutor(max_workers=len(environment.parts)) as pool:
        return list(pool.map(lambda part: check(environment, part, supervised), environment.parts))


def all_healthy(rows: list[Row]) -> bool:
    """Whether every row is healthy."""
    return all(row.status == "healthy" for row in rows)


def document(environment: Environment, rows: list[Row]) -> dict[str, Any]:
    """The rows as JSON."""
    return {"name": environment.name, "healthy": all_healthy(rows), "parts": [asdict(row) for row in rows]}


def table(rows: list[Row], title: str) -> Table:
    """The rows for people."""
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
