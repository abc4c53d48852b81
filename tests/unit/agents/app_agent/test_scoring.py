"""Scoring of answers to golden prompts."""

import pytest

from optiinfra.agents.app_agent.scoring import is_correct
from optiinfra.api.runtimes import GoldenAnswer


@pytest.mark.parametrize(
    ("expected", "answer", "correct"),
    [
        ("Canberra", "  The capital is CANBERRA. ", True),
        ("carbon dioxide", "It is carbon\n dioxide, mostly.", True),
        ("1440", "There are 1,440 minutes.", True),
        ("750", "$750 are left", True),
        ("5", "15", False),
        ("5", "5.2", False),
        ("5", "-5", False),
        ("-5", "It is -5.", True),
        ("no", "I do not know", False),
        ("17:30", "At 17:30.", True),
        ("Canberra", "Unclear.", False),
    ],
)
def test_answer_is_correct_if_it_contains_the_expected_word(expected: str, answer: str, correct: bool) -> None:
    assert is_correct(GoldenAnswer(prompt_id="p", turns=1, expected=expected, answer=answer)) is correct
