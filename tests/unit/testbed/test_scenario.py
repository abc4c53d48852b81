"""Phases are carried out all, once, in order."""

import pytest

from testbed.scenario import PhaseError, Scenario


@pytest.fixture
def scenario() -> Scenario:
    return Scenario("SPOT MIGRATION E2E TEST", ["Recording initial state", "Measuring"], lambda _line: None)


def test_the_output_is_the_contracts(scenario: Scenario) -> None:
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


def test_a_phase_out_of_order_is_refused(scenario: Scenario) -> None:
    with pytest.raises(PhaseError, match="'Recording initial state' comes next"), scenario.phase("Measuring"):
        pass


def test_a_phase_is_not_repeated(scenario: Scenario) -> None:
    with scenario.phase("Recording initial state"):
        pass
    with pytest.raises(PhaseError, match="out of order"), scenario.phase("Recording initial state"):
        pass


def test_a_phase_does_not_begin_inside_another(scenario: Scenario) -> None:
    with scenario.phase("Recording initial state"), pytest.raises(PhaseError, match="inside"):
        scenario.phase("Measuring").__enter__()


def test_left_out_phases_are_named(scenario: Scenario) -> None:
    with scenario.phase("Recording initial state"):
        pass
    with pytest.raises(PhaseError, match="left out: Measuring"):
        scenario.finish()
    assert not any("PASSED" in line for line in scenario.lines)


def test_where_it_stands_is_said(scenario: Scenario) -> None:
    assert scenario.where() == "before phase 1: Recording initial state"
    with pytest.raises(RuntimeError), scenario.phase("Recording initial state"):
        raise RuntimeError
    assert scenario.where() == "in phase 1: Recording initial state"


@pytest.mark.parametrize("phases", [[], ["same", "same"]])
def test_phases_must_be_declared_and_differ(phases: list[str]) -> None:
    with pytest.raises(ValueError, match="phases"):
        Scenario("X", phases)
