"""Learning from past changes: similarity of two changes, and correction of predictions by measured outcomes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from optiinfra.domain.recommendation import RecommendationType

_TYPES: tuple[RecommendationType, ...] = (
    "spot_migration",
    "idle_shutdown",
    "kv_cache_tuning",
    "quantization",
    "engine_tuning",
    "rightsizing",
    "consolidation",
    "scale_out",
    "cross_cloud_placement",
    "quality_rollback",
)
DIMENSIONS = len(_TYPES) + 5
MIN_SIMILARITY = 0.9
PRIOR_WEIGHT = 0.5
"""Weight of the uncorrected model, in outcomes: shrinks the correction while few outcomes are known."""


@dataclass(frozen=True, slots=True)
class Change:
    """What makes a change similar to others: price in dollars an hour, traffic in requests a second."""

    type: RecommendationType
    hourly_price: float
    model_parameters: float
    gpu_count: int
    replicas: int
    requests_per_second: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """A past change: the model's figures before any correction, and the measured ones, by name."""

    optimization_id: str
    similarity: float
    modelled: dict[str, float]
    measured: dict[str, float]


def features(change: Change) -> list[float]:
    """The feature vector of a change, for cosine similarity: its type weighs most, then its size on log scales."""
    kind = [1.0 if change.type == known else 0.0 for known in _TYPES]
    return [
        *kind,
        math.log2(1.0 + change.hourly_price) / 10.0,
        math.log2(1.0 + change.model_parameters / 1e9) / 10.0,
        change.gpu_count / 16.0,
        math.log2(1.0 + change.replicas) / 10.0,
        math.log2(1.0 + change.requests_per_second) / 10.0,
    ]


def correction(outcomes: Sequence[Outcome], figure: str) -> float:
    """Factor by which to multiply the model's `figure`, learnt from its errors in similar past changes.

    It is the geometric mean of measured over modelled, weighted by similarity and shrunk towards 1 by `PRIOR_WEIGHT`.
    """
    weighted = weight = 0.0
    for outcome in outcomes:
        modelled, measured = outcome.modelled.get(figure, 0.0), outcome.measured.get(figure, 0.0)
        if modelled > 0 and measured > 0:
            weighted += outcome.similarity * math.log(measured / modelled)
            weight += outcome.similarity
    return math.exp(weighted / (weight + PRIOR_WEIGHT))
