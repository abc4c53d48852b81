"""Parsing of telemetry into the columns that the store takes: thousands of objects would take as long as all else."""

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, NamedTuple

import msgspec

from optiinfra.api.common import END_MOMENT, FIRST_MOMENT
from optiinfra.api.telemetry import MOST_ROWS, Count, Edge, Identifier, RuntimeMetric, TelemetryBatch, Value

_OPEN_EDGE = math.inf
_NUL = rb"\u0000"
"""How JSON writes it; no stored text may have one."""
_MOST_ROWS = msgspec.Meta(max_length=MOST_ROWS)
_Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]


class SampleColumns(NamedTuple):
    """The fields of samples, in the order that the store has after the customer's id."""

    deployment_ids: Sequence[str]
    replica_ids: Sequence[str]
    metrics: Sequence[str]
    timestamps: Sequence[datetime]
    values: Sequence[float]


class CountColumns(NamedTuple):
    """The fields of latency counts, in the order that the store has after the customer's id; the open edge is inf."""

    deployment_ids: Sequence[str]
    replica_ids: Sequence[str]
    timestamps: Sequence[datetime]
    edges: Sequence[float]
    counts: Sequence[int]


class Columns(NamedTuple):
    """A batch of telemetry."""

    samples: SampleColumns
    latencies: CountColumns

    @classmethod
    def of(cls, batch: TelemetryBatch) -> "Columns":
        """The columns of a batch."""
        return _columns(batch.samples, batch.latencies, lambda moment: moment)

    @property
    def rows(self) -> int:
        """How many samples and counts there are."""
        return len(self.samples.values) + len(self.latencies.counts)

    @property
    def deployment_ids(self) -> set[str]:
        """The deployments that they are of."""
        return {*self.samples.deployment_ids, *self.latencies.deployment_ids}


def parse_batch(body: bytes) -> Columns:
    """The batch of a JSON text; raises pydantic's ValidationError.

    msgspec takes a sixth of pydantic's time. What it does not accept is left to pydantic, which accepts more, and whose
    errors say what is wrong.
    """
    parsed = _parse(body)
    return Columns.of(TelemetryBatch.model_validate_json(body)) if parsed is None else parsed


def _parse(body: bytes) -> Columns | None:
    """The batch, or None if msgspec does not accept it."""
    if _NUL in body:
        return None
    try:
        batch = _DECODER.decode(body)
        # Rows share few timestamps, so each is parsed once.
        texts = {row.timestamp for rows in (batch.samples, batch.latencies) for row in rows}
        moments = dict(zip(texts, msgspec.convert([*texts], list[_Timestamp]), strict=True))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if moments and not FIRST_MOMENT <= min(moments.values()) <= max(moments.values()) < END_MOMENT:
        return None
    return _columns(batch.samples, batch.latencies, moments.__getitem__)


def _columns(samples: Sequence[Any], latencies: Sequence[Any], moment: Callable[[Any], datetime]) -> Columns:
    """The columns of rows with the fields of Sample and LatencyCount; `moment` makes their timestamps."""

    return Columns(
        SampleColumns(
            [row.deployment_id for row in samples],
            [row.replica_id for row in samples],
            [row.metric for row in samples],
            [moment(row.timestamp) for row in samples],
            [row.value for row in samples],
        ),
        CountColumns(
            [row.deployment_id for row in latencies],
            [row.replica_id for row in latencies],
            [moment(row.timestamp) for row in latencies],
            [_OPEN_EDGE if row.le is None else row.le for row in latencies],
            [row.count for row in latencies],
        ),
    )


# Structs take msgspec half the time of dataclasses. Their timestamps are parsed later, see `_parse`.
class _Sample(msgspec.Struct, gc=False):  # it refers to no other objects
    deployment_id: Identifier
    metric: RuntimeMetric
    timestamp: str
    value: Value
    replica_id: Identifier = ""


class _LatencyCount(msgspec.Struct, gc=False):
    deployment_id: Identifier
    replica_id: Identifier
    timestamp: str
    le: Edge | None
    count: Count


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    samples: Annotated[list[_Sample], _MOST_ROWS] = msgspec.field(default_factory=list)
    latencies: Annotated[list[_LatencyCount], _MOST_ROWS] = msgspec.field(default_factory=list)


_DECODER = msgspec.json.Decoder(_Batch)
