"""The judgement of a canary stage: pass, fail, or look again when more was seen."""

from dataclasses import dataclass
from typing import Literal

Decision = Literal["pass", "fail", "continue"]

ERROR_RATE = 0.05
"""Chance, over all looks of one stage together, of passing what should have failed."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one look at a stage showed: estimate and confidence bounds in the figure's own unit."""

    decision: Decision
    reason: str
    observations: int
    estimate: float | None = None
    lower_bound: float | None = None
    upper_bound: float | None = None
