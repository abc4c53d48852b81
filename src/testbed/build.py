"""`invoke build-all` on the embedded backend: compile every package and import every module.

There is no image to build, so a build proves that each service can start. It also leaves bytecode behind, which a dozen
starting processes would otherwise each produce.
"""

import compileall
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from testbed import paths
from testbed.environment import scrubbed

IMPORT_ALL = """\
import gc, importlib, pkgutil, sys
gc.disable()  # collecting meanwhile takes a fifth of the time
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(getattr(package, "__path__", []), name + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


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


def build(target: Target) -> None:
    """Compile and import one target. Raises BuildError."""
    for folder in map(_folder, target.packages):
        if not compileall.compile_dir(folder, quiet=2, workers=1):
            raise BuildError(f"{folder} does not compile: `python -m compileall {folder}` shows where")
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *target.packages, *target.loads],
        cwd=paths.ROOT,
        env=scrubbed(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"{', '.join(target.packages)} cannot be imported:\n{done.stderr.strip()}")


def _folder(package: str) -> Path:
    """The folder of a package, which lies under `src` or, like `fixtures`, at the root."""
    relative = package.replace(".", "/")
    found = next((folder for folder in (paths.ROOT / "src" / relative, paths.ROOT / relative) if folder.exists()), None)
    if found is None:
        raise BuildError(f"package {package} does not exist")
    return found


def build_all(say: Callable[[str], None], targets: tuple[Target, ...] = TARGETS) -> None:
    """Build the targets, with one line for each in their order. Raises BuildError for the first that fails."""
    for target, wait in _started(targets):
        try:
            wait()
        except BuildError:
            say(f"Building {target.name}... ✗")
            raise
        say(f"Building {target.name}... ✓")


def _started(targets: tuple[Target, ...]) -> Iterator[tuple[Target, Callable[[], None]]]:
    """Each target with a function that waits for its build."""
    # The first is built alone: it compiles most of what the others share.
    first, *others = targets
    yield first, lambda: build(first)
    with ThreadPoolExecutor(max_workers=2) as pool:
        futures = [(target, pool.submit(build, target)) for target in others]
        for target, future in futures:
            yield target, future.result
