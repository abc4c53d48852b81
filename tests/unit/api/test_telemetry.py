"""Samples in batches."""

from datetime import timedelta

from optiinfra.api.common import now
from optiinfra.api.telemetry import Reading, Sample, TelemetryBatch

AT = now()


def sample(metric: str, value: float, *, replica: str = "", minute: int = 0) -> Sample:
    return Sample("dep_1", metric, AT + timedelta(minutes=minute), value, replica)


def test_samples_of_one_moment_share_a_reading() -> None:
    batch = TelemetryBatch.of(
        [
            sample("throughput", 1.0),
            sample("throughput", 2.0, replica="rep_1"),
            sample("gpu_utilization", 0.5),
            sample("throughput", 3.0, minute=1),
        ]
    )
    assert batch.readings == [
        Reading("dep_1", AT, {"throughput": 1.0, "gpu_utilization": 0.5}),
        Reading("dep_1", AT, {"throughput": 2.0}, "rep_1"),
        Reading("dep_1", AT + timedelta(minutes=1), {"throughput": 3.0}),
    ]


def test_samples_of_one_metric_and_moment_are_all_kept() -> None:
    batch = TelemetryBatch.of([sample("throughput", value) for value in (1.0, 2.0)])
    assert [reading.values for reading in batch.readings] == [{"throughput": 1.0}, {"throughput": 2.0}]
