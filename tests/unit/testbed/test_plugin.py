"""The plugin, in runs of pytest of its own."""

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
        return pytester.runpytest_inprocess("-p", "testbed.plugin", "-p", "no:randomly", *arguments)

    return of


def test_a_passed_scenarios_lines_are_always_in_the_report(run) -> None:  # type: ignore[no-untyped-def]
    result = run("test_spot_migration", SCENARIO.format(rest=ALL), "--junitxml=out.xml")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["■ PHASE 1: One...", "  a figure: 7", "■ PHASE 2: Two...", "■ SPOT MIGRATION E2E TEST PASSED"]
    )


def test_with_s_they_are_shown_live_and_once(run) -> None:  # type: ignore[no-untyped-def]
    result = run("test_spot_migration", SCENARIO.format(rest=ALL), "-s")
    assert result.stdout.str().count("■ PHASE 1: One...") == 1


def test_a_left_out_phase_fails_the_test(run) -> None:  # type: ignore[no-untyped-def]
    result = run("test_spot_migration", SCENARIO.format(rest="pass"))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*phases left out: Two*"])


def test_a_failure_names_the_phase_and_what_was_last_seen(run) -> None:  # type: ignore[no-untyped-def]
    waits = """
    from testbed.waiting import wait_until
    with scenario.phase("Two"):
        wait_until(lambda: "pending", "the end", 0, accept=lambda seen: False)
    """.replace("\n    ", "\n    ")
    result = run("test_spot_migration", SCENARIO.format(rest=waits.strip()))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*where it stood*", "in phase 2: Two", "waiting for the end; last seen: 'pending'"])


def test_an_exceeded_deadline_names_the_phase_too(run) -> None:  # type: ignore[no-untyped-def]
    text = SCENARIO.format(
        rest="""from testbed.waiting import wait_until
    with scenario.phase("Two"):
        wait_until(lambda: "pending", "the end", 60, accept=lambda seen: False)"""
    ).replace("@pytest", "@pytest.mark.timeout(0.3)\n@pytest", 1)
    result = run("test_spot_migration", text)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*where it stood*", "in phase 2: Two", "waiting for the end; last seen: 'pending'"])


def test_every_kind_has_the_contracts_deadline(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
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


def test_a_scenario_without_a_deadline_is_refused(run) -> None:  # type: ignore[no-untyped-def]
    result = run("test_new_scenario", "import pytest\n@pytest.mark.e2e\ndef test_new(): pass")
    assert result.ret != 0
    result.stderr.fnmatch_lines(["*no deadline is set for scenario test_new_scenario*"])


def test_the_environment_that_was_used_is_said(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    made = environments.create("mine", Settings(coverage=True), None, "/nowhere/supervisor.sock")
    monkeypatch.setattr(startup, "running", lambda _name: made)
    monkeypatch.setenv(plugin.GIVEN, "mine")
    result = run("test_any", "def test_any(environment): assert environment['name'] == 'mine'")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["environment: mine (given by the session); service coverage is on"])
