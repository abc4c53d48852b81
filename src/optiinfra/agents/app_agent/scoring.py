"""Whether an answer to a golden prompt is right. Pure."""

import re
import unicodedata
from collections.abc import Sequence

from optiinfra.api.runtimes import GoldenAnswer


def normalise(text: str) -> str:
    """One form of each character, no capitals, single spaces, no commas between a number's thousands."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", folded)


def is_right(answer: GoldenAnswer) -> bool:
    """Whether the answer holds what was expected as a word of its own: 5 is neither in 15, nor in 5.2, nor in -5."""
    expected = normalise(answer.expected)
    if not expected:
        raise ValueError(f"golden prompt {answer.prompt_id} expects nothing; it needs an expected answer")
    pattern = rf"(?<![\w-])(?<!\d\.){re.escape(expected)}(?!\w|\.\d|-\w)"
    return re.search(pattern, normalise(answer.answer)) is not None


def correct(answers: Sequence[GoldenAnswer]) -> int:
    """How many of the answers are right."""
    return sum(is_right(answer) for answer in answers)


def lost_answers(before: Sequence[GoldenAnswer], since: Sequence[GoldenAnswer]) -> int:
    """How many prompts were answered right before and are answered wrong since.

    `before` begins with the same prompts in the same order; ValueError when it does not.
    """
    asked = [answer.prompt_id for answer in since]
    if [answer.prompt_id for answer in before[: len(since)]] != asked:
        raise ValueError(f"the baseline's answers are not to the {len(asked)} prompts that the stage was asked")
    return sum(is_right(was) and not is_right(now) for was, now in zip(before, since, strict=False))
