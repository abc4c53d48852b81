"""New code under running optimizations: renamed functions do not orphan running workflows."""

import io
import shutil
import tokenize
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fixtures import estates
from optiinfra.domain.optimization import STEPS
from testbed import paths
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, provisioned
from tests.helpers.idle_shutdown import assert_rolled_back, start_shutdown, states
from tests.helpers.migration import (
    assert_migrated_once,
    assert_rolled_back_once,
    observe,
    start_failing_migration,
    start_migration,
    wait_for_optimization,
    wait_for_step,
)
from tests.helpers.private_platform import PrivatePlatform, private_platform_over

CHANGED = Path("optiinfra", "orchestrator", "optimizations")


class UpgradablePlatform:
    """A private platform that runs a copy of the code, in `source`."""

    def __init__(self, platform: PrivatePlatform, source: Path) -> None:
        self.platform, self.source = platform, source

    def upgrade(self) -> None:
        """Rename every function that only `optimizations` knows, and restart the orchestrator."""
        renamed = rename_functions(self.source)
        assert len(renamed) > 40, f"only {renamed} were renamed"
        assert "OptimizationWorkflow" not in renamed
        running = self.platform.process("optiinfra.orchestrator")
        assert running.environ()["PYTHONPATH"] == str(self.source)
        self.platform.kill("optiinfra.orchestrator")


@pytest.fixture(scope="module")
def upgradable(environment: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpgradablePlatform]:
    """One for the tests of this module; each of them upgrades it once more."""
    source = tmp_path_factory.mktemp("release")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(paths.ROOT / "src" / "optiinfra", source / "optiinfra", ignore=ignored)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(source))
        with private_platform_over(environment, f"upgrade-{paths.digest(str(source))}") as platform:
            yield UpgradablePlatform(platform, source)


def rename_functions(source: Path) -> set[str]:
    """Give the functions that are defined below `CHANGED`, and named nowhere else, other names; which those were."""
    texts = {path: path.read_text() for path in source.rglob("*.py")}
    inside = {path for path in texts if path.is_relative_to(source / CHANGED)}
    elsewhere = {word for path in texts.keys() - inside for word in names(texts[path])}
    defined = {name for path in inside for name in functions(texts[path])}
    renamed = {name for name in defined - elsewhere if not name.startswith("__")}
    for path in inside:
        path.write_text(with_names(texts[path], {name: f"{name}_renamed" for name in renamed}))
    return renamed


def names(text: str) -> set[str]:
    """Every name in a module's code; strings and comments are none."""
    return {token.string for token in tokens(text) if token.type == tokenize.NAME}


def functions(text: str) -> set[str]:
    """Names of the functions and methods that a module defines."""
    found = [token for token in tokens(text) if token.type == tokenize.NAME]
    return {name.string for keyword, name in pairwise(found) if keyword.string == "def"}


def with_names(text: str, changed: dict[str, str]) -> str:
    """The module's code with these names changed."""
    lines = text.splitlines(keepends=True)
    for token in reversed(tokens(text)):
        if token.type == tokenize.NAME and token.string in changed:
            (row, begin), (_, end) = token.start, token.end
            lines[row - 1] = lines[row - 1][:begin] + changed[token.string] + lines[row - 1][end:]
    return "".join(lines)


def tokens(text: str) -> list[tokenize.TokenInfo]:
    """A module's tokens."""
    return list(tokenize.generate_tokens(io.StringIO(text).readline))


@pytest.fixture
def customer_of(upgradable: UpgradablePlatform) -> Iterator[Callable[[str], Customer]]:
    """Provision an example estate as a customer of the upgradable platform."""
    with ExitStack() as customers:
        yield lambda name: customers.enter_context(
            provisioned(upgradable.platform.document, estates.load(ESTATES / f"{name}.yaml"))
        )


@pytest.mark.parametrize("step", ["deploy_canary", "validate_50_percent"])
def test_spot_migration_completes_under_upgraded_code(
    upgradable: UpgradablePlatform, customer_of: Callable[[str], Customer], step: str
) -> None:
    customer = customer_of("acme")
    before = observe(customer)
    optimization_id = start_migration(customer)
    wait_for_step(customer, optimization_id, step)
    upgradable.upgrade()
    assert_migrated_once(customer, wait_for_optimization(customer, optimization_id), before)


def test_spot_migration_rolls_back_under_upgraded_code(
    upgradable: UpgradablePlatform, customer_of: Callable[[str], Customer]
) -> None:
    customer = customer_of("acme")
    before = observe(customer)
    optimization_id = start_failing_migration(customer)
    wait_for_step(customer, optimization_id, "undo_scale_to_50_percent")
    upgradable.upgrade()
    assert_rolled_back_once(customer, wait_for_optimization(customer, optimization_id), before)


def test_idle_shutdown_completes_under_upgraded_code(
    upgradable: UpgradablePlatform, customer_of: Callable[[str], Customer]
) -> None:
    customer = customer_of("startup")
    optimization_id = start_shutdown(customer)
    wait_for_step(customer, optimization_id, "verify_unaffected")
    upgradable.upgrade()
    optimization = wait_for_optimization(customer, optimization_id)
    assert optimization.status == "completed", optimization.result
    assert states(customer) == ["terminated"]


def test_idle_shutdown_rolls_back_under_upgraded_code(
    upgradable: UpgradablePlatform, customer_of: Callable[[str], Customer]
) -> None:
    customer = customer_of("startup")
    optimization_id = start_shutdown(customer)
    wait_for_step(customer, optimization_id, "verify_unaffected")
    customer.inject_fault({"kind": "gateway_drop", "rate": 0.5, "deployment": "chat"})
    upgradable.upgrade()
    optimization = wait_for_optimization(customer, optimization_id)
    assert_rolled_back(optimization, STEPS["idle_shutdown"][:3])
    assert states(customer) == ["running"]
