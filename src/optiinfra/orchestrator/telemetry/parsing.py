"""Parsing of telemetry: msgspec takes a quarter of pydantic's time for thousands of samples."""

from typing import Annotated

import msgspec

from optiinfra.api.common import END_MOMENT, FIRST_MOMENT
from optiinfra.api.telemetry import MOST_ROWS, LatencyCount, Sample, TelemetryBatch


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    samples: Annotated[list[Sample], msgspec.Meta(max_length=MOST_ROWS)] = msgspec.field(default_factory=list)
    latencies: Annotated[list[LatencyCount], msgspec.Meta(max_length=MOST_ROWS)] = msgspec.field(default_factory=list)


_DECODER = msgspec.json.Decoder(_Batch)


def parse_batch(body: bytes) -> TelemetryBatch:
    """The batch of a JSON text; raises pydantic's ValidationError.

    What msgspec does not accept is left to pydantic, which accepts more, and whose errors say what is wrong.
    """
    try:
        batch = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return TelemetryBatch.model_validate_json(body)
    moments = [*(sample.timestamp for sample in batch.samples), *(count.timestamp for count in batch.latencies)]
    if moments and not FIRST_MOMENT <= min(moments) <= max(moments) < END_MOMENT:
        return TelemetryBatch.model_validate_json(body)
    texts = {sample.metric for sample in batch.samples}
    texts |= {row.deployment_id for rows in (batch.samples, batch.latencies) for row in rows}
    texts |= {row.replica_id for rows in (batch.samples, batch.latencies) for row in rows}
    if any("\0" in text for text in texts):
        return TelemetryBatch.model_validate_json(body)
    return TelemetryBatch.model_construct(samples=batch.samples, latencies=batch.latencies)
