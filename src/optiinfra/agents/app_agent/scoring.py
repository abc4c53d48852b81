"""Scoring of answers to golden prompts. No I/O."""

import re
import unicodedata
from collections.abc import Sequence

from optiinfra.api.runtimes import GoldenAnswer


def normalise(text: str) -> str:
    """Unicode NFKC, case folded, single spaces, no thousands separators."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", folded)


def is_correct(answer: GoldenAnswer) -> bool:
    """Whether the answer contains the expected text as a whole word: 5 is not in 15, 5.2 or -5."""
    expected = normalise(answer.expected)
    if not expected:
        raise ValueError(f"golden prompt {answer.prompt_id} expects nothing; it needs an expected answer")
    pattern = rf"(?<![\w-])(?<!\d\.){re.escape(expected)}(?!\w|\.\d|-\w)"
    return re.search(pattern, normalise(answer.answer)) is not None


def count_correct(answers: Sequence[GoldenAnswer]) -> int:
    """How many of the answers are correct."""
    return sum(is_correct(answer) for answer in answers)


def count_lost(before: Sequence[GoldenAnswer], after: Sequence[GoldenAnswer]) -> int:
    """How many prompts were answered correctly before the change and incorrectly afterwards.

    `before` must begin with the same prompts in the same order, else ValueError.
    """
    asked = [answer.prompt_id for answer in after]
    if [answer.prompt_id for answer in before[: len(after)]] != asked:
        raise ValueError(f"the baseline does not cover the {len(asked)} prompts of the stage")
    return sum(is_correct(was) and not is_correct(now) for was, now in zip(before, after, strict=False))
