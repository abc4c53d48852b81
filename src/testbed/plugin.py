"""The testbed's pytest plugin: markers, timeouts, scenarios, and the environment that tests run against.

Unit tests load it as well, so expensive modules are imported inside functions.
"""

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from testbed import guard, paths, sessions, waiting
from testbed.scenario import Scenario

pytest_plugins = ["testbed.exclusive", "testbed.figures"]

# Timeouts of the contract: minutes for each scenario, seconds for the other kinds.
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

GIVEN = "OPTIINFRA_TESTENV"  # name of the environment that the nox session provides
OWN = "OPTIINFRA_TESTENV_OWN"  # name of the environment that this run starts when none is running

_scenario = pytest.StashKey[Scenario]()
_used = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Register markers, begin a session, and name the run's own environment."""
    config.addinivalue_line("markers", "phases(*names, title=None): the phases of a scenario, in order")
    config.addinivalue_line("markers", "slow: takes more than 5 seconds; `nox -s fast` leaves it out")
    if not hasattr(config, "workerinput"):
        os.environ[OWN] = f"pytest-{os.getpid()}"
    session = contextlib.ExitStack()
    session.enter_context(sessions.hold())
    config.add_cleanup(session.close)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart() -> None:
    """Refuse to run tests that could reach a real service.

    Checked here because an exit from the fixture would end an xdist worker without showing the reason.
    """
    from testbed import environment as environments

    try:
        guard.check_caller()
        with contextlib.suppress(ValueError, environments.SetupError):  # the environment fixture reports it
            environments.load(os.environ.get(GIVEN) or environments.DEFAULT_NAME)
    except guard.Refused as refused:
        pytest.exit(str(refused), returncode=guard.EXIT_CODE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every system test the timeout of its kind, which excludes starting the environment."""
    for item in items:
        seconds = allowed_seconds(item)
        if seconds is not None and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(waiting.stretched(seconds), func_only=True))


def allowed_seconds(item: pytest.Item) -> float | None:
    """The contract's timeout of a test in seconds, or None."""
    if item.get_closest_marker("e2e"):
        module = item.path.stem
        if module not in SCENARIO_MINUTES:
            raise pytest.UsageError(f"{item.nodeid}: scenario {module} has no timeout: add it to SCENARIO_MINUTES")
        return SCENARIO_MINUTES[module] * 60
    return next((float(seconds) for mark, seconds in SECONDS.items() if item.get_closest_marker(mark)), None)


@pytest.fixture
def scenario(request: pytest.FixtureRequest) -> Scenario:
    """The test's scenario with the phases of its `phases` marker. A missing or out-of-order phase fails the test."""
    mark = request.node.get_closest_marker("phases")
    if mark is None:
        raise pytest.UsageError(f"{request.node.nodeid} uses `scenario` without @pytest.mark.phases(...)")
    title = mark.kwargs.get("title") or f"{scenario_name(request.node.path)} E2E TEST"
    made = Scenario(title, mark.args)
    request.node.stash[_scenario] = made
    return made


def scenario_name(path: Path) -> str:
    """SPOT MIGRATION for test_spot_migration.py."""
    return path.stem.removeprefix("test_").removesuffix("_scenario").replace("_", " ").upper()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Check, as part of the test itself, that all phases of a scenario have run."""
    waiting.reset_waits()
    result = yield
    found = pyfuncitem.stash.get(_scenario, None)
    if found is not None:
        found.finish()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Add the scenario's output to the report, and after a failure its phase and what it was waiting for."""
    report = yield
    found = item.stash.get(_scenario, None)
    if call.when == "call":
        if found is not None:
            report.user_properties.append(("scenario", "\n".join(found.lines)))
        if report.failed:
            position = [found.position()] if found is not None else []
            wait = waiting.unfinished_wait()
            position += [wait] if wait else []
            if position:
                report.sections.append(("position", "\n".join(position)))
    if call.when != "teardown" and (used := item.config.stash.get(_used, None)):
        report.user_properties.append(("environment", used))
    return report


@pytest.fixture(scope="session")
def environment(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The document of the given, running, or newly started environment, as of `invoke status --json`."""
    from testbed import startup
    from testbed.environment import DEFAULT_NAME, Settings

    given = os.environ.get(GIVEN)
    found = startup.running(given or DEFAULT_NAME)
    if given and found is None:
        raise pytest.UsageError(f"{GIVEN}={given}, but no such environment is running")
    settings = Settings.chosen(None, coverage=False, fleet_speed=None)
    how = "provided by the session" if given else "already running"
    if found is None:
        own = os.environ[OWN]
        found = startup.start(own, settings, print)
        how = "started for this run and stopped after it"
    elif not given and found.fingerprint != found.settings.fingerprint():
        how = "already running, STARTED FROM OTHER SOURCES"
    coverage = "on" if found.settings.coverage else "off"
    request.config.stash[_used] = f"{found.name} ({how}); service coverage is {coverage}"
    return found.document()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop the environment that this run started, if any, and save its logs."""
    if hasattr(session.config, "workerinput"):
        return
    own = os.environ[OWN]
    if paths.state_dir(own).exists():
        from testbed import evidence, startup

        startup.stop(own, print)
        evidence.keep_logs(own, paths.ROOT / "reports" / "evidence" / "pytest" / "logs")
        startup.clean(own, print)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Name the environment that was used, and show output of scenarios and figures that were not shown live."""
    reports = [report for group in ("passed", "failed", "error") for report in terminalreporter.stats.get(group, [])]
    # Reports of collection errors have no properties.
    properties = [entry for report in reports for entry in getattr(report, "user_properties", ())]
    for used in sorted({value for key, value in properties if key == "environment"}):
        terminalreporter.write_line(f"environment: {used}")
    live = config.getoption("capture") == "no" and not config.getoption("numprocesses", None)
    for kind, title in (("scenario", "scenarios"), ("figures", "figures")):
        shown = [value for key, value in properties if key == kind]
        if shown and not live:
            terminalreporter.section(title)
            for text in shown:
                terminalreporter.write_line(text)
