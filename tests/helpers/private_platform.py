"""A private platform for fault injection, with a proxy before each store and the cloud."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from fixtures import estates
from testbed import consistency, evidence, paths, private, startup
from testbed import environment as environments
from testbed.backends import backend_of
from testbed.environment import Environment, free_port
from testbed.health import Row, check
from testbed.locks import locked
from testbed.parts import PARTS, find_part
from testbed.waiting import wait_until
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, provisioned
from tests.helpers.own_environment import OwnEnvironment
from tests.helpers.proxy import Proxy, proxy_to

KEPT_LOGS = paths.ROOT / "reports" / "evidence" / "pytest" / "private"

PROXIED = ("postgresql", "clickhouse", "redis", "qdrant", "cloud-front")


class PrivatePlatform(OwnEnvironment):
    """Started services; `proxies` stand between them and each store and the cloud."""

    def __init__(self, name: str, proxies: Mapping[str, Proxy]) -> None:
        super().__init__(name)
        self.proxies = proxies

    @property
    def described(self) -> Environment:
        """Its description as it is now."""
        found = environments.load(self.name)
        assert found is not None, f"environment {self.name} is gone"
        return found

    def row(self, part: str) -> Row:
        """A part's health row, from its own answer alone."""
        return check(self.described, find_part(part), None)

    def restart(self, changed: Mapping[str, str]) -> None:
        """Stop its services and start them with these changed settings, in place of those before."""
        startup.stop(self.name, print)
        with locked(self.name):
            replace(self.described, changed=dict(changed)).save()
        self.document = startup.start(self.name, self.described.settings, print).document()

    def kill(self, module: str) -> None:
        """`kill -9` of the process that runs the module, as soon as there is one; it is restarted."""
        (program,) = (part.program for part in PARTS if part.module == module)
        backend = backend_of(self.described)
        wait_until(
            lambda: backend.states().get(program),
            f"a process that runs {module}",
            60,
            accept=lambda state: state is not None and state.pid != 0,
            poll=0.02,
        )
        backend.kill(program)

    def kill_supervisor(self) -> None:
        """`kill -9` of the supervisor, then a start, which stops the orphaned processes first."""
        supervisor = self.process("supervisor.supervisord")
        supervisor.kill()
        supervisor.wait(10)
        started = self.invoke("start-test-env")
        assert started.returncode == 0, started.stdout + started.stderr
        assert "stopped orphaned processes" in started.stdout


@contextmanager
def private_platform_over(
    environment: Mapping[str, Any],
    name: str,
    changed: Mapping[str, str] | None = None,
    *,
    proxied: Sequence[str] = PROXIED,
    agents: bool = True,
    coverage: bool | None = None,
) -> Iterator[PrivatePlatform]:
    """Start services over that environment's engines, with changed settings; remove everything of them afterwards.

    Without proxies (`proxied=()`) and coverage, they are as fast as those of an environment. Without `agents`, there
    are none but those that a test registers.
    """
    host = environments.load(environment["name"])
    assert host is not None, f"environment {environment['name']} is gone"
    with ExitStack() as stack:
        ports: set[int] = set()
        proxies: dict[str, Proxy] = {}
        for part in proxied:
            port = free_port(ports)
            ports.add(port)
            proxies[part] = stack.enter_context(proxy_to(host.ports[part], port, host.host_address))
        platform = PrivatePlatform(name, proxies)
        described = private.describe(
            name,
            host,
            {part: proxy.port for part, proxy in proxies.items()},
            changed,
            agents=agents,
            coverage=coverage,
        )
        stack.callback(_clean, name)
        with locked(name):
            described.save()
        platform.document = startup.start(name, described.settings, print).document()
        yield platform


def _clean(name: str) -> None:
    """Remove it and keep its logs, which may be needed to explain a failure."""
    startup.stop(name, print)
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    evidence.keep_logs(name, KEPT_LOGS / f"{name.rpartition('-')[0]}{worker}")
    startup.clean(name, print)


@pytest.fixture(scope="module")
def private_platform(environment: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[PrivatePlatform]:
    """A private platform for the tests of a module. Indirect parametrization with a mapping changes its settings.

    After the module's tests, its stores and clouds must be consistent.
    """
    module = request.node.name.rpartition("/")[2].removeprefix("test_").removesuffix(".py").replace("_", "-")
    changed = getattr(request, "param", None)
    with private_platform_over(environment, f"{module}-{os.getpid()}", changed) as platform:
        yield platform
        dangling = consistency.fetch(platform.described)["dangling"]
        assert dangling == [], f"the stores and clouds of {platform.name} are not consistent"


@pytest.fixture
def private_acme(private_platform: PrivatePlatform) -> Iterator[Customer]:
    """The sample estate, as a customer of the private platform."""
    with provisioned(private_platform.document, estates.load(ESTATES / "acme.yaml")) as customer:
        yield customer
