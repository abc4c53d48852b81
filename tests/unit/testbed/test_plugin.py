"""The pytest plugin, tested in separate pytest runs."""

import pytest

from testbed import environment as environments
from testbed import plugin, startup
from testbed.environment import Settings

SCENARIO = """
import pytest

@pytest.mark.phases("One", "Two")
def test_spot_migration(scenario):
    with scenario.phase("One"):
        scenario.say("a figure: 7")
    {rest}
"""
ALL = 'with scenario.phase("Two"):\n        pass'


@pytest.fixture
def run(pytester: pytest.Pytester):  # type: ignore[no-untyped-def]
    def of(name: str, text: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(**{name: text})
        return pytester.runpytest_inprocess("-p", "testbed.plugin", *arguments)

    return of


def test_scenario_output_is_always_in_the_report(run) -> None:  # type: ignore[no-untyped-def]
    result = run("test_spot_migration", SCENARIO.format(rest=ALL), "--junitxml=out.xml")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["■ PHASE 1: One...", "  a figure: 7", "■ PHASE 2: Two...", "■ SPOT MIGRATION E2E TEST PASSED"]
    )


def test_scenario_output_without_capture_is_shown_once(run) -> None:  # type: ignore[no-untyped-def]
    result = run("test_spot_migration", SCENARIO.format(rest=ALL), "-s")
    assert result.stdout.str().count("■ PHASE 1: One...") == 1


def test_scenario_with_a_missing_phase_fails(run) -> None:  # type: ignore[no-untyped-def]
    result = run("test_spot_migration", SCENARIO.format(rest="pass"))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*phases did not run: Two*"])


WAITS = """from testbed.waiting import wait_until
    with scenario.phase("Two"):
        wait_until(lambda: "pending", "the end", {seconds}, accept=lambda seen: False)"""


@pytest.mark.parametrize("timeout", ["wait", "test"])
def test_failure_report_names_phase_and_last_seen(run, timeout: str) -> None:  # type: ignore[no-untyped-def]
    text = SCENARIO.format(rest=WAITS.format(seconds=0 if timeout == "wait" else 60))
    if timeout == "test":
        text = text.replace("@pytest", "@pytest.mark.timeout(0.3)\n@pytest", 1)
    result = run("test_spot_migration", text)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*position*", "in phase 2: Two", "waiting for the end; last seen: 'pending'"])


def test_timeout_of_each_kind_is_that_of_the_contract(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("OPTIINFRA_TIMEOUT_FACTOR", "2")
    text = """
import pytest

def seconds(request):
    return request.node.get_closest_marker("timeout").args[0]

@pytest.mark.e2e
def test_scenario(request): assert seconds(request) == 2 * 8 * 60
@pytest.mark.integration
def test_integration(request): assert seconds(request) == 2 * 120
@pytest.mark.performance
def test_performance(request): assert seconds(request) == 2 * 300
@pytest.mark.security
def test_security(request): assert seconds(request) == 2 * 30
def test_unit(request): assert request.node.get_closest_marker("timeout") is None
"""
    run("test_spot_migration", text).assert_outcomes(passed=5)


def test_scenario_without_a_timeout_is_refused(run) -> None:  # type: ignore[no-untyped-def]
    result = run("test_new_scenario", "import pytest\n@pytest.mark.e2e\ndef test_new(): pass")
    assert result.ret != 0
    result.stderr.fnmatch_lines(["*scenario test_new_scenario has no timeout*"])


def test_summary_names_the_environment_that_was_used(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    made = environments.create("mine", Settings(coverage=True), None, "/nowhere/supervisor.sock")
    monkeypatch.setattr(startup, "running", lambda _name: made)
    monkeypatch.setenv(plugin.GIVEN, "mine")
    result = run("test_any", "def test_any(environment): assert environment['name'] == 'mine'")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["environment: mine (provided by the session); service coverage is on"])
