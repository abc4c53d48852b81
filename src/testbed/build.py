"""`invoke build-all` on the embedded backend: compile every package and import every module.

There is no image to build, so a build proves that each service can start. It also leaves bytecode behind, which a dozen
starting processes would otherwise each produce.
"""

import compileall
import gc
import importlib
import multiprocessing
import os
import pkgutil
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

from testbed import paths
from testbed.waiting import stretched

LIBRARIES = (
    "alembic.autogenerate",
    "boto3",
    "clickhouse_connect",
    "dbos",
    "fastapi",
    "httpx",
    "jinja2",
    "jwt",
    "limits.aio.storage",
    "prometheus_client",
    "pydantic_settings",
    "qdrant_client",
    "redis.asyncio",
    "sqlalchemy.ext.asyncio",
    "structlog",
    "uvicorn",
    "yaml",
)
"""What several targets import. It is imported once, in the process from which those of the targets are forked."""
BUILD_SECONDS = 120.0


class BuildError(Exception):
    """A package does not compile or cannot be imported; the message says why."""


@dataclass(frozen=True)
class Target:
    """One line of build-all: our packages, and modules of other distributions that the process loads at its start."""

    name: str
    packages: tuple[str, ...]
    loads: tuple[str, ...] = ()


SERVICES = (
    Target("orchestrator", ("optiinfra.orchestrator",)),
    Target("cost-agent", ("optiinfra.agents.cost_agent",)),
    Target("performance-agent", ("optiinfra.agents.perf_agent",)),
    Target("resource-agent", ("optiinfra.agents.resource_agent",)),
    Target("application-agent", ("optiinfra.agents.app_agent",)),
    Target("portal", ("optiinfra.portal",)),
)
"""The six services, in the order that the contract fixes."""
HELPERS = (
    Target("runtime", ("optiinfra.runtime",)),
    Target("sandbox", ("fixtures",)),
    Target(
        "engines", ("testbed.engines",), ("moto.moto_server.werkzeug_app", "moto.ec2.responses", "moto.sts.responses")
    ),
)
"""The other parts of the environment, which follow the services."""
TARGETS = (*SERVICES, *HELPERS)


def build_all(
    say: Callable[[str], None], targets: tuple[Target, ...] = TARGETS, libraries: tuple[str, ...] = LIBRARIES
) -> None:
    """Build the targets, with one line for each in their order. Raises BuildError for the first that fails."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(libraries))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for target, building in [(target, pool.submit(_build, context, target)) for target in targets]:
            failure = building.result()
            say(f"Building {target.name}... {'✗' if failure else '✓'}")
            if failure:
                pool.shutdown(cancel_futures=True)
                raise BuildError(failure)


def _build(context: ForkServerContext, target: Target) -> str:
    """Build a target in a process that has none of our modules yet. Returns why that fails, or nothing."""
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_report_failure, args=(target, sending))
    process.start()
    sending.close()
    try:
        if not receiving.poll(stretched(BUILD_SECONDS)):
            return f"{target.name} was not built within {stretched(BUILD_SECONDS):g} s"
        return str(receiving.recv())
    except EOFError:
        return f"the process that built {target.name} ended without a result"
    finally:
        process.kill()
        process.join()


def _report_failure(target: Target, sending: Connection) -> None:
    gc.disable()  # collecting meanwhile takes a fifth of the time
    sending.send(_failure(target))


def _failure(target: Target) -> str:
    """Compile and import one target. Returns why that fails, or nothing."""
    for package in target.packages:
        folder = _folder(package)
        if folder is None:
            return f"package {package} does not exist"
        if not compileall.compile_dir(folder, quiet=2, workers=1):
            return f"{folder} does not compile: `python -m compileall {folder}` shows where"
    try:
        for package in target.packages:
            for name in _modules(package):
                importlib.import_module(name)
        for name in target.loads:
            importlib.import_module(name)
    except (Exception, SystemExit):
        return f"{target.name} cannot be imported:\n{traceback.format_exc()}"
    return ""


def _modules(package: str) -> Iterator[str]:
    """The package and all its modules but those that run something."""
    yield package
    path = getattr(importlib.import_module(package), "__path__", [])
    for module in pkgutil.walk_packages(path, f"{package}."):
        if not module.name.endswith("__main__"):
            yield module.name


def _folder(package: str) -> Path | None:
    """The folder of a package, which lies under `src` or, like `fixtures`, at the root."""
    relative = package.replace(".", "/")
    folders = (paths.ROOT / "src" / relative, paths.ROOT / relative)
    return next((folder for folder in folders if folder.exists()), None)
