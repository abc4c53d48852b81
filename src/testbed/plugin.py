"""The pytest plugin of the testbed: marks, timeouts, scenarios, and the environment that tests run against.

Unit tests load it too, so whatever is heavy is imported where it is used.
"""

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from testbed import guard, owners, paths, waiting
from testbed.scenario import Scenario

# Minutes of each scenario, seconds of the other kinds.
SCENARIO_MINUTES = {
    "test_spot_migration": 8,
    "test_performance_optimization": 7,
    "test_multi_agent_coordination": 6,
    "test_quality_validation": 5,
    "test_complete_customer_journey": 10,
    "test_rollback_scenario": 4,
    "test_conflict_resolution": 6,
    "test_cross_cloud_optimization": 8,
}
SECONDS = {"integration": 120, "performance": 300, "security": 30}

GIVEN = "OPTIINFRA_TESTENV"  # the environment that a nox session started for this run
OWN = "OPTIINFRA_TESTENV_OWN"  # what this run calls an environment that it has to start itself

_scenario = pytest.StashKey[Scenario]()
_used = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks; name the run's own environment, and its owner, to all that it starts."""
    config.addinivalue_line("markers", "phases(*names, title=None): the phases of a scenario, in order")
    config.addinivalue_line("markers", "slow: takes more than 5 seconds; `nox -s fast` leaves it out")
    if not hasattr(config, "workerinput"):
        os.environ[OWN] = f"pytest-{os.getpid()}"
        os.environ[owners.VARIABLE] = owners.mark(os.getpid())


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart() -> None:
    """Refuse to run any test where it could reach something real.

    Here rather than in the fixture, whose exit would take xdist's worker down without the reason.
    """
    from testbed import environment as environments

    try:
        guard.check_caller()
        with contextlib.suppress(ValueError, environments.SetupError):  # told to the test that needs it
            environments.load(os.environ.get(GIVEN) or environments.DEFAULT_NAME)
    except guard.Refused as refused:
        pytest.exit(str(refused), returncode=guard.EXIT_CODE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every system test the deadline of its kind. Setting up the environment does not count."""
    for item in items:
        seconds = allowed_seconds(item)
        if seconds is not None and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(waiting.stretched(seconds), func_only=True))


def allowed_seconds(item: pytest.Item) -> float | None:
    """The contract's deadline of a test, in seconds; None for tests that have none."""
    if item.get_closest_marker("e2e"):
        module = item.path.stem
        if module not in SCENARIO_MINUTES:
            raise pytest.UsageError(
                f"{item.nodeid}: no deadline is set for scenario {module}: add it to SCENARIO_MINUTES"
            )
        return SCENARIO_MINUTES[module] * 60
    return next((float(seconds) for mark, seconds in SECONDS.items() if item.get_closest_marker(mark)), None)


@pytest.fixture
def scenario(request: pytest.FixtureRequest) -> Scenario:
    """The test's scenario, made from its `phases` mark; a missing or out-of-order phase fails the test."""
    mark = request.node.get_closest_marker("phases")
    if mark is None:
        raise pytest.UsageError(f"{request.node.nodeid} uses `scenario` without @pytest.mark.phases(...)")
    title = mark.kwargs.get("title") or f"{scenario_name(request.node.path)} E2E TEST"
    made = Scenario(title, mark.args)
    request.node.stash[_scenario] = made
    return made


def scenario_name(path: Path) -> str:
    """SPOT MIGRATION, of test_spot_migration.py."""
    return path.stem.removeprefix("test_").removesuffix("_scenario").replace("_", " ").upper()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A scenario whose body ended well must have carried out all its phases: checked as part of the test itself."""
    waiting.reset_waits()
    result = yield
    found = pyfuncitem.stash.get(_scenario, None)
    if found is not None:
        found.finish()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Put the scenario's lines into the report, and where it stood and what it waited for when it failed."""
    report = yield
    found = item.stash.get(_scenario, None)
    if call.when == "call":
        if found is not None:
            report.user_properties.append(("scenario", "\n".join(found.lines)))
        if report.failed:
            words = [found.where()] if found is not None else []
            last = waiting.unfinished_wait()
            words += [last] if last else []
            if words:
                report.sections.append(("where it stood", "\n".join(words)))
    if call.when != "teardown" and (used := item.config.stash.get(_used, None)):
        report.user_properties.append(("environment", used))
    return report


@pytest.fixture(scope="session")
def environment(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The environment's document (`invoke status --json`): the given or running one, else one started for this run."""
    from testbed import startup
    from testbed.environment import DEFAULT_NAME, Settings

    given = os.environ.get(GIVEN)
    found = startup.running(given or DEFAULT_NAME)
    if given and found is None:
        raise pytest.UsageError(f"{GIVEN}={given}, but no such environment is running")
    settings = Settings.chosen(None, coverage=False, fleet_speed=None)
    how = "given by the session" if given else "running already"
    if found is None:
        own = os.environ[OWN]
        found = startup.start(own, settings, print)
        how = "started for this run, stopped after it"
    elif not given and found.fingerprint != found.settings.fingerprint():
        how = "running already, started from OTHER SOURCES than the present ones"
    coverage = "on" if found.settings.coverage else "off"
    request.config.stash[_used] = f"{found.name} ({how}); service coverage is {coverage}"
    return found.document()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop the run's own environment, if any test needed one; its logs are kept."""
    if hasattr(session.config, "workerinput"):
        return
    own = os.environ[OWN]
    if paths.state_dir(own).exists():
        from testbed import evidence, startup

        startup.stop(own, print)
        evidence.keep_logs(own, paths.ROOT / "reports" / "evidence" / "pytest" / "logs")
        startup.clean(own, print)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which environment was used, and show the scenarios' lines where they were not seen live."""
    reports = [report for group in ("passed", "failed", "error") for report in terminalreporter.stats.get(group, [])]
    # What could not be collected has none.
    properties = [entry for report in reports for entry in getattr(report, "user_properties", ())]
    for used in sorted({value for key, value in properties if key == "environment"}):
        terminalreporter.write_line(f"environment: {used}")
    live = config.getoption("capture") == "no" and not config.getoption("numprocesses", None)
    shown = [value for key, value in properties if key == "scenario"]
    if shown and not live:
        terminalreporter.section("scenarios")
        for text in shown:
            terminalreporter.write_line(text)
