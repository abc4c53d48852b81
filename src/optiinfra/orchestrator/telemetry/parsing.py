"""Parsing of telemetry into the columns that the store takes: an object for each row would cost too much time."""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain, repeat
from typing import Annotated, NamedTuple, TypeVar

import msgspec

from optiinfra.api.common import END_MOMENT, FIRST_MOMENT
from optiinfra.api.telemetry import MOST_ROWS, LatencyCount, Reading, TelemetryBatch

T = TypeVar("T")

_OPEN_EDGE = math.inf
_NUL = rb"\u0000"
"""How JSON writes it; no stored text may have one."""
_MOST_ROWS = msgspec.Meta(max_length=MOST_ROWS)


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
        return _columns(batch.readings, batch.latencies)

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

    msgspec takes a quarter of pydantic's time. What it does not accept is left to pydantic, which accepts more, and
    whose errors say what is wrong.
    """
    parsed = _parse(body)
    return Columns.of(TelemetryBatch.model_validate_json(body)) if parsed is None else parsed


def _parse(body: bytes) -> Columns | None:
    """The batch, or None if msgspec does not accept it."""
    if _NUL in body:
        return None
    try:
        batch = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    moments = [*(reading.timestamp for reading in batch.readings), *(count.timestamp for count in batch.latencies)]
    if moments and not FIRST_MOMENT <= min(moments) <= max(moments) < END_MOMENT:
        return None
    columns = _columns(batch.readings, batch.latencies)
    return None if len(columns.samples.values) > MOST_ROWS else columns


def _columns(readings: Sequence[Reading], latencies: Sequence[LatencyCount]) -> Columns:
    numbers = [len(reading.values) for reading in readings]

    def repeated(column: Iterable[T]) -> list[T]:
        return list(chain.from_iterable(map(repeat, column, numbers)))

    return Columns(
        SampleColumns(
            repeated(reading.deployment_id for reading in readings),
            repeated(reading.replica_id for reading in readings),
            list(chain.from_iterable(reading.values for reading in readings)),
            repeated(reading.timestamp for reading in readings),
            list(chain.from_iterable(reading.values.values() for reading in readings)),
        ),
        CountColumns(
            [row.deployment_id for row in latencies],
            [row.replica_id for row in latencies],
            [row.timestamp for row in latencies],
            [_OPEN_EDGE if row.le is None else row.le for row in latencies],
            [row.count for row in latencies],
        ),
    )


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    readings: Annotated[list[Reading], _MOST_ROWS] = msgspec.field(default_factory=list)
    latencies: Annotated[list[LatencyCount], _MOST_ROWS] = msgspec.field(default_factory=list)


_DECODER = msgspec.json.Decoder(_Batch)
