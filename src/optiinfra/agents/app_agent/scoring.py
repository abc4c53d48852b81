"""Whether an answer to a golden prompt is right. Pure."""

import re
import unicodedata
from collections.abc import Sequence

from optiinfra.api.runtimes import GoldenAnswer


def normalise(text: str) -> str:
    """Lower case, one form of each character, words apart by one space; commas within numbers are dropped."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    without_commas = re.sub(r"(?<=\d),(?=\d{3}\b)", "", folded)
    return " ".join(re.findall(r"[\w.\-/:%$€]*\w[%]?", without_commas))


def is_right(answer: GoldenAnswer) -> bool:
    """Whether the answer holds what was expected, as whole words."""
    expected = normalise(answer.expected)
    return bool(expected) and f" {expected} " in f" {normalise(answer.answer)} "


def correct(answers: Sequence[GoldenAnswer]) -> int:
    """How many of the answers are right."""
    return sum(is_right(answer) for answer in answers)
