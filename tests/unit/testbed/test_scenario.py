"""Phases of a scenario run completely, once, and in order."""

import pytest

from testbed.scenario import PhaseError, Scenario


@pytest.fixture
def scenario() -> Scenario:
    return Scenario("SPOT MIGRATION E2E TEST", ["Recording initial state", "Measuring"], lambda _line: None)


def test_output_is_that_of_the_contract(scenario: Scenario) -> None:
    with scenario.phase("Recording initial state"):
        scenario.say("Initial monthly cost: $120,000")
    with scenario.phase("Measuring"):
        scenario.announce("Recommendation generated")
    scenario.finish()
    assert scenario.lines == [
        "■ PHASE 1: Recording initial state...",
        "  Initial monthly cost: $120,000",
        "■ PHASE 2: Measuring...",
        "■ Recommendation generated",
        "■ SPOT MIGRATION E2E TEST PASSED",
    ]


def test_phase_out_of_order_is_refused(scenario: Scenario) -> None:
    with pytest.raises(PhaseError, match="expected 'Recording initial state'"), scenario.phase("Measuring"):
        pass


def test_phase_repeated_is_refused(scenario: Scenario) -> None:
    with scenario.phase("Recording initial state"):
        pass
    with pytest.raises(PhaseError, match="out of order"), scenario.phase("Recording initial state"):
        pass


def test_phase_inside_another_is_refused(scenario: Scenario) -> None:
    with scenario.phase("Recording initial state"), pytest.raises(PhaseError, match="inside"):
        scenario.phase("Measuring").__enter__()


def test_finish_with_missing_phases_names_them(scenario: Scenario) -> None:
    with scenario.phase("Recording initial state"):
        pass
    with pytest.raises(PhaseError, match="did not run: Measuring"):
        scenario.finish()
    assert not any("PASSED" in line for line in scenario.lines)


def test_position_names_the_current_phase(scenario: Scenario) -> None:
    assert scenario.position() == "before phase 1: Recording initial state"
    with pytest.raises(RuntimeError), scenario.phase("Recording initial state"):
        raise RuntimeError
    assert scenario.position() == "in phase 1: Recording initial state"


@pytest.mark.parametrize("phases", [[], ["same", "same"]])
def test_scenario_without_distinct_phases_is_refused(phases: list[str]) -> None:
    with pytest.raises(ValueError, match="phases"):
        Scenario("X", phases)
