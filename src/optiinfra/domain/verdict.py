"""Verdict on a canary stage: pass, fail, or continue until more is observed."""

from dataclasses import dataclass
from typing import Literal

Decision = Literal["pass", "fail", "continue"]

ERROR_RATE = 0.05
"""Probability, over all looks at one stage, of passing a change that should fail."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of one look at a stage: estimate and confidence bounds in the metric's own unit."""

    decision: Decision
    reason: str
    observations: int
    estimate: float | None = None
    lower_bound: float | None = None
    upper_bound: float | None = None
