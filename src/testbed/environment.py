"""One environment: its name, ports, addresses and secrets, kept in ``.testenv/NAME/environment.json`` (mode 0600)."""

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from testbed import guard, paths, sessions
from testbed.engines.settings import private_folders, write_private
from testbed.fingerprint import fingerprint, version
from testbed.parts import HOST, PARTS, Part, find_part, variable_name
from testbed.waiting import stretched

DEFAULT_NAME = "e2e"
BACKENDS = ("embedded", "compose")
# Below the range of ephemeral ports, so that no outgoing connection takes a port before we do.
FREE_PORTS = range(20000, 32000)
SUBNETS = IPv4Network("172.30.0.0/16")
"""Where the networks of containers are."""
_ADDRESS_BITS = 5
_ADDRESSES = 2**_ADDRESS_BITS
"""Of one of them."""
_PORTS = "ports"
"""A file in the folder of the supervisor's socket, which exists while an environment starts or runs."""
START_DEADLINE_SECONDS = 60.0
"""How long a service waits for stores at its start: its default, which is not stretched by itself."""
PRINCIPAL_ARN = "arn:aws:iam::123456789012:role/optiinfra-orchestrator"
"""The platform's own identity, in the account that the mock cloud assumes for unknown keys."""
STORE_SECRETS = (
    "postgresql_password",
    "clickhouse_password",
    "clickhouse_reader_password",
    "redis_password",
    "qdrant_api_key",
    "qdrant_read_only_api_key",
)
SECRETS = (
    *STORE_SECRETS,
    "admin_token",
    "enrolment_secret",
    "token_signing_key",
    "task_signing_key",
    "portal_session_key",
    "portal_secret",
    "audit_key",
)
# What children inherit of the caller's environment; nothing else, so that no credential of the caller reaches them.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
INHERITED_PREFIXES = ("PYTHON", "COVERAGE_")
# Without bytecode, each process would compile what it imports, and a start would take three times as long.
NOT_INHERITED = ("PYTHONDONTWRITEBYTECODE",)
# Settings that the caller may change; addresses and secrets are always the environment's own.
TUNABLE = ("OPTIINFRA_TIMEOUT_FACTOR", "OPTIINFRA_TRUSTED_PROXIES", "OPTIINFRA_LOG_LEVEL")
TUNABLE_PREFIXES = ("OPTIINFRA_RATE_LIMIT",)

RAISED_RATE_LIMITS = {
    "SIGN_IN": "1000000/minute",
    "SIGN_UP": "1000000/minute",
    "API": "1000000/second",
    "SAMPLES": "1000000000/second",
    "AUDITED_REFUSALS": "1000000/minute",
    "LOCKOUT_FAILURES": "1000000",
}
"""The limits of an environment; tests of the limits themselves set the defaults in a private platform."""


class SetupError(Exception):
    """The environment cannot be set up as requested."""


@dataclass(frozen=True)
class Settings:
    """What the caller chooses when starting."""

    backend: str = "embedded"
    coverage: bool = False
    fleet_speed: float = 300.0
    recommendation_ttl_seconds: int = 3600

    @classmethod
    def chosen(cls, backend: str | None, *, coverage: bool, fleet_speed: float | None) -> "Settings":
        """From the command line, else from environment variables, else the defaults."""
        taken = backend or os.environ.get("OPTIINFRA_BACKEND") or cls.backend
        if taken not in BACKENDS:
            raise SetupError(f"no backend is called {taken!r}: use {' or '.join(BACKENDS)}")
        speed = float(os.environ.get("OPTIINFRA_FLEET_SPEED", cls.fleet_speed)) if fleet_speed is None else fleet_speed
        ttl = int(os.environ.get("OPTIINFRA_RECOMMENDATION_TTL_SECONDS", cls.recommendation_ttl_seconds))
        return cls(taken, coverage, speed, ttl)

    def fingerprint(self) -> str:
        """The fingerprint of an environment that is started now with these settings."""
        return fingerprint(backend=self.backend, coverage=self.coverage, fleet_speed=self.fleet_speed)


@dataclass(frozen=True)
class Environment:
    """The description of an environment; ``document`` is its JSON form.

    ``session`` is the folder of the session that it was started for, None when a person started it.
    """

    name: str
    env_id: str
    settings: Settings
    version: str
    fingerprint: str
    ports: Mapping[str, int]
    credentials: Mapping[str, str]
    supervisor_socket: str
    session: Path | None
    over: str | None = None
    """The host of a private platform, whose engines, clouds and sandbox it uses; None for other environments."""
    namespace: str = "optiinfra"
    """The name, or the prefix, of its databases, keys and collections."""
    changed: Mapping[str, str] = field(default_factory=dict)
    """Settings of its services that differ from the defaults, by variable without the prefix."""
    agents: bool = True
    """Whether a private platform runs the four agents."""
    proxies: tuple[str, ...] = ()
    """The parts of the host that a private platform reaches through ports of this machine."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that this environment runs itself."""
        if self.over is None:
            return PARTS
        return tuple(part for part in PARTS if part.is_platform and (self.agents or part.kind != "agent"))

    @property
    def collection(self) -> str:
        """The collection of outcomes in Qdrant."""
        return "outcomes" if self.over is None else f"{self.namespace}_outcomes"

    @property
    def state_dir(self) -> Path:
        """The environment's folder."""
        return paths.state_dir(self.name)

    @property
    def in_containers(self) -> bool:
        """Whether its processes run in containers, on a network of their own."""
        return self.settings.backend == "compose"

    @property
    def subnet(self) -> IPv4Network:
        """The network of its containers."""
        digest = hashlib.sha256((self.over or self.name).encode()).digest()
        first = int.from_bytes(digest[:2]) // _ADDRESSES * _ADDRESSES  # SUBNETS has two bytes of addresses
        return IPv4Network((int(SUBNETS.network_address) + first, 32 - _ADDRESS_BITS))

    @property
    def host_address(self) -> str:
        """The address of this machine for the environment's processes."""
        return str(next(self.subnet.hosts())) if self.in_containers else HOST

    @property
    def runtime_status(self) -> Path:
        """The file that the runtime rewrites every second, in a folder of its own: nothing else may be written."""
        return self.state_dir / "runtime-state" / "runtime-status.json"

    def address(self, name: str, *, inside: bool = False) -> str:
        """Host and port of a part on this machine; `inside`: for the environment's processes."""
        if not (inside and self.in_containers):
            return f"{HOST}:{self.ports[name]}"
        part = find_part(name)
        if name in self.proxies:
            return f"{self.host_address}:{self.ports[name]}"
        owner = self.name if part in self.parts else self.over
        return f"{part.program}.{owner}:{part.container_port}"

    def url(self, name: str, *, inside: bool = False) -> str:
        """The HTTP address of a part."""
        return f"http://{self.address(name, inside=inside)}"

    def urls(self, *, inside: bool = False) -> dict[str, str]:
        """Every part's address; of PostgreSQL and Redis the connection string."""
        credentials = self.credentials
        postgresql, redis = (self.address(name, inside=inside) for name in ("postgresql", "redis"))
        role = f"optiinfra:{credentials['postgresql_password']}"
        return {name: self.url(name, inside=inside) for name in self.ports} | {
            "postgresql": f"postgresql+psycopg://{role}@{postgresql}/{self.namespace}",
            "redis": f"redis://:{credentials['redis_password']}@{redis}/0",
        }

    def document(self) -> dict[str, Any]:
        """The output of ``invoke status --json``. It contains secrets."""
        return {
            "name": self.name,
            "env_id": self.env_id,
            "version": self.version,
            "fingerprint": self.fingerprint,
            **dataclasses.asdict(self.settings),
            "state_dir": str(self.state_dir),
            "runtime_enrolments": str(self.state_dir / "runtime"),
            "supervisor_socket": self.supervisor_socket,
            "over": self.over,
            "namespace": self.namespace,
            "collection": self.collection,
            "changed": dict(self.changed),
            "agents": self.agents,
            "session": str(self.session) if self.session else None,
            "ports": dict(self.ports),
            "urls": self.urls(),
            "inner_urls": self.urls(inside=True),
            "host_address": self.host_address,
            "proxies": list(self.proxies),
            "credentials": {"clickhouse_user": "optiinfra", **self.credentials},
        }

    def variables(self, part: Part) -> dict[str, str]:
        """The ``OPTIINFRA_*`` variables of a part's process."""
        credentials, urls = self.credentials, self.urls(inside=True)
        ports = {name: int(self.address(name, inside=True).rpartition(":")[2]) for name in self.ports}
        common = {
            "ENV_ID": self.env_id,
            "VERSION": self.version,
            "HOST": "0.0.0.0" if self.in_containers else HOST,  # noqa: S104  its network is its own
            "STATE_DIR": str(self.runtime_status.parent if part.kind == "runtime" else self.state_dir),
            "FLEET_SPEED": f"{self.settings.fleet_speed:g}",
            # Several environments at once take longer to start than one.
            "START_DEADLINE_SECONDS": f"{stretched(START_DEADLINE_SECONDS):g}",
            "RECOMMENDATION_TTL_SECONDS": str(self.settings.recommendation_ttl_seconds),
            "RUNTIME_ENROLMENTS": str(self.state_dir / "runtime"),
            "CLICKHOUSE_URL": urls["clickhouse"],
            "CLICKHOUSE_DATABASE": self.namespace,
            "QDRANT_URL": urls["qdrant"],
            "QDRANT_COLLECTION": self.collection,
            "ORCHESTRATOR_URL": urls["orchestrator"],
        } | {f"{variable_name(name)}_PORT": str(port) for name, port in ports.items()}
        groups: dict[str, dict[str, str]] = {
            "CLICKHOUSE_WRITER": {
                "CLICKHOUSE_USER": "optiinfra",
                "CLICKHOUSE_PASSWORD": credentials["clickhouse_password"],
            },
            "CLICKHOUSE_READER": {
                "CLICKHOUSE_USER": "optiinfra_reader",
                "CLICKHOUSE_PASSWORD": credentials["clickhouse_reader_password"],
            },
            "QDRANT_WRITER": {"QDRANT_API_KEY": credentials["qdrant_api_key"]},
            "QDRANT_READER": {"QDRANT_API_KEY": credentials["qdrant_read_only_api_key"]},
            "POSTGRESQL_URL": {"POSTGRESQL_URL": urls["postgresql"]},
            "REDIS_URL": {"REDIS_URL": urls["redis"], "REDIS_PREFIX": self.namespace},
            "AGENT_NETWORKS": {"AGENT_NETWORKS": f"{self.subnet},127.0.0.0/8"} if self.in_containers else {},
            "AWS_ENDPOINT_URL": {"AWS_ENDPOINT_URL": urls["cloud-front"], "AWS_PRINCIPAL_ARN": PRINCIPAL_ARN},
            "LOCALSTACK_URL": {"LOCALSTACK_URL": urls["localstack"]},
            # Tests call a hundred times as often as people, from one address.
            "RATE_LIMITS": {
                f"RATE_LIMIT_{name}": os.environ.get(f"OPTIINFRA_RATE_LIMIT_{name}", raised)
                for name, raised in RAISED_RATE_LIMITS.items()
            },
            # Instances are minutes old here: none would reach the platform's default of a day.
            "IDLE_GRACE_SECONDS": {"IDLE_GRACE_SECONDS": "2"},
            # Nor would a test wait for a quarter of an hour until they are terminated.
            "IDLE_OBSERVATION_SECONDS": {"IDLE_OBSERVATION_SECONDS": "2", "IDLE_POLL_SECONDS": "0.5"},
        }
        if self.in_containers:
            common["LOCAL_NAMES"] = f"{part.program}.{self.name},{self.host_address}"
        for name in part.variables:
            common |= groups[name] if name in groups else {name: credentials[name.lower()]}
        return {f"OPTIINFRA_{name}": value for name, value in {**common, **self.changed}.items()}

    def save(self) -> None:
        """Write ``environment.json``, private from its first byte on, whole or not at all.

        While it starts and runs, its ports are also in its folder for other checkouts.
        """
        target = description(self.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        write_private(partial, json.dumps(self.document(), indent=2))
        partial.replace(target)
        socket_folder = Path(self.supervisor_socket).parent
        if socket_folder in private_folders("run"):
            (socket_folder / _PORTS).write_text(" ".join(map(str, self.ports.values())))


def env_id(name: str) -> str:
    """``OPTIINFRA_ENV_ID`` of every process of the environment.

    It depends on the checkout and the name only, so that orphaned processes are found even if its files were deleted.
    """
    return f"{name}-{paths.digest(name)}"


def description(name: str) -> Path:
    """Where the environment is described."""
    return paths.state_dir(name) / "environment.json"


def load(name: str) -> Environment | None:
    """The environment as last started, or None when it is not described.

    Refused if an address in its description is not on loopback. SetupError if the description cannot be read.
    """
    found = _read(name)
    if found is None:
        return None
    environment, written = found
    remedy = f"run `invoke clean --name {name}` and start again"
    for urls in (written, environment.urls()):
        guard.check_urls(urls, str(description(name)), remedy)
    return environment


def read(name: str) -> Environment | None:
    """The environment as described, with unchecked addresses: only for stopping, removing and recording it."""
    found = _read(name)
    return found[0] if found is not None else None


def _read(name: str) -> tuple[Environment, dict[str, str]] | None:
    file = description(name)
    try:
        document = json.loads(file.read_text())
        settings = {field.name: document[field.name] for field in dataclasses.fields(Settings)}
        session = document["session"]
        environment = Environment(
            name=document["name"],
            env_id=document["env_id"],
            settings=Settings(**settings),
            version=document["version"],
            fingerprint=document["fingerprint"],
            ports=dict(document["ports"]),
            credentials={key: document["credentials"][key] for key in SECRETS},
            supervisor_socket=document["supervisor_socket"],
            over=document["over"],
            namespace=document["namespace"],
            changed=document["changed"],
            agents=document["agents"],
            proxies=tuple(document["proxies"]),
            session=Path(session) if session else None,
        )
        return environment, {part: str(url) for part, url in document["urls"].items()}
    except FileNotFoundError:
        return None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SetupError(
            f"{file} cannot be read ({error!r}): run `invoke clean --name {name}` and start again"
        ) from error


def create(name: str, settings: Settings, previous: Environment | None, supervisor_socket: str) -> Environment:
    """A new description, with the secrets of the previous one, so that kept data stays readable, and new ports.

    The previous description of a private platform is kept, with its ports and settings. ValueError when the session of
    this process has ended.
    """
    if previous is not None and previous.over is not None:
        return replace(previous, version=version(), supervisor_socket=supervisor_socket)
    kept = previous.credentials if previous else {}
    return Environment(
        name=name,
        env_id=env_id(name),
        settings=settings,
        version=version(),
        fingerprint=settings.fingerprint(),
        ports=choose_ports(name),
        credentials={key: kept.get(key) or secrets.token_hex(24) for key in SECRETS},
        supervisor_socket=supervisor_socket,
        session=sessions.current(),
    )


def choose_ports(name: str) -> dict[str, int]:
    """Each part's port: its variable's value, else the fixed one (default name only), else a free one."""
    ports: dict[str, int] = {}
    for part in PARTS:
        if part.port is None or part.port_variable is None:
            continue
        wanted = os.environ.get(part.port_variable)
        if wanted is not None:
            if not wanted.isdigit() or not 0 < int(wanted) < 65536:
                raise SetupError(f"{part.port_variable}={wanted!r} is not a port: give a number from 1 to 65535")
            ports[part.name] = int(wanted)
        elif name == DEFAULT_NAME:
            ports[part.name] = part.port
        else:
            ports[part.name] = free_port(set(ports.values()))
    twice = {port for port in ports.values() if list(ports.values()).count(port) > 1}
    if twice:
        raise SetupError(f"port {min(twice)} is given to more than one part: change one OPTIINFRA_<NAME>_PORT")
    return ports


def free_port(taken: set[int]) -> int:
    """A port in FREE_PORTS that nothing listens on and no environment has, of this or another checkout."""
    excluded = taken | reserved_ports()
    for port in random.sample(FREE_PORTS, k=200):
        if port not in excluded and is_free(port):
            return port
    raise SetupError(f"no free port found from {FREE_PORTS.start} to {FREE_PORTS.stop}")


def reserved_ports() -> set[int]:
    """The ports of environments whose parts may not listen yet: all of this checkout, and those started by others."""
    found: set[int] = set()
    for file in paths.environments_dir().glob("*/environment.json"):
        with contextlib.suppress(SetupError, ValueError):  # unreadable, or a folder that is no environment
            if (described := read(file.parent.name)) is not None:
                found.update(described.ports.values())
    for folder in private_folders("run"):
        with contextlib.suppress(OSError, ValueError):  # stopped meanwhile, or of another user
            found.update(map(int, (folder / _PORTS).read_text().split()))
    return found


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def tuned(source: Mapping[str, str]) -> dict[str, str]:
    """The settings that the caller has changed."""
    return {key: value for key, value in source.items() if key in TUNABLE or key.startswith(TUNABLE_PREFIXES)}


def scrubbed(source: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of the caller that children may see."""
    kept = {
        key: value
        for key, value in source.items()
        if (key in INHERITED or key.startswith(INHERITED_PREFIXES)) and key not in NOT_INHERITED
    }
    return kept | tuned(source) | {"TZ": "UTC"}
