"""build-all: what there is to build on the embedded backend.

There is no compiler and no image here, so building means proving that each service could start: its package is compiled
to bytecode, and every module of it is imported in a process of its own. It also leaves the bytecode that makes the
start fast, which a dozen processes would otherwise each produce.
"""

import compileall
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from testbed import paths
from testbed.environment import scrubbed

IMPORT_ALL = """\
import importlib, pkgutil, sys
count = 0
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    found = [each.name for each in pkgutil.walk_packages(getattr(package, "__path__", []), name + ".")]
    for module in found:
        if not module.endswith("__main__"):
            importlib.import_module(module)
    count += 1 + len(found)
print(count)
"""


class BuildError(Exception):
    """A package does not compile or import; the message holds the reason."""


@dataclass(frozen=True)
class Target:
    """What one line of build-all builds: packages of ours, and modules of others that its process loads."""

    name: str
    packages: tuple[str, ...]
    loads: tuple[str, ...] = ()


# The first six in the order that the guide shows; the helpers follow.
TARGETS = (
    Target("orchestrator", ("optiinfra.orchestrator",)),
    Target("cost-agent", ("optiinfra.agents.cost_agent",)),
    Target("performance-agent", ("optiinfra.agents.perf_agent",)),
    Target("resource-agent", ("optiinfra.agents.resource_agent",)),
    Target("application-agent", ("optiinfra.agents.app_agent",)),
    Target("portal", ("optiinfra.portal",)),
    Target("runtime", ("optiinfra.runtime",)),
    Target("sandbox", ("fixtures",)),
    Target(
        "engines", ("testbed.engines",), ("moto.moto_server.werkzeug_app", "moto.ec2.responses", "moto.sts.responses")
    ),
)


def build(target: Target) -> str:
    """Build one target; what was done, in words. Raises BuildError."""
    folders = [paths.ROOT / "src" / package.replace(".", "/") for package in target.packages]
    for folder in (each if each.exists() else paths.ROOT / each.relative_to(paths.ROOT / "src") for each in folders):
        if not folder.exists():
            raise BuildError(f"{folder} does not exist")
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
    return f"{done.stdout.strip()} modules compiled and imported"


def build_all(say: Callable[[str], None]) -> None:
    """Build every target, printing a line each in their order; raises BuildError for the first that fails."""
    for target, result in _results():
        try:
            say(f"Building {target.name}... ✓ ({result()})")
        except BuildError:
            say(f"Building {target.name}... ✗")
            raise


def _results() -> Iterator[tuple[Target, Callable[[], str]]]:
    # The first one alone: it loads most of what the others share, so that they find it compiled.
    yield TARGETS[0], lambda: build(TARGETS[0])
    with ThreadPoolExecutor(max_workers=2) as pool:
        futures = [(target, pool.submit(build, target)) for target in TARGETS[1:]]
        for target, future in futures:
            yield target, future.result
