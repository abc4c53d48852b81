"""Batches that are parsed by msgspec, compared with pydantic's."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from optiinfra.api.telemetry import MOST_ROWS, TelemetryBatch
from optiinfra.orchestrator.telemetry.parsing import Columns, parse_batch

READING = {
    "deployment_id": "dep_1",
    "timestamp": "2026-11-27T10:00:00Z",
    "values": {"throughput": 2.5, "gpu_utilization": 0.5},
}
COUNT = {"deployment_id": "dep_1", "replica_id": "rep_1", "timestamp": "2026-11-27T10:00:00Z", "le": 0.5, "count": 3}


def by_pydantic(body: bytes) -> Columns:
    return Columns.of(TelemetryBatch.model_validate_json(body))


def outcome(parse: Callable[[bytes], Columns], body: bytes) -> Columns | list[tuple[int | str, ...]]:
    """The columns, or the places of errors."""
    try:
        return parse(body)
    except ValidationError as error:
        return [each["loc"] for each in error.errors()]


moments = st.datetimes().map(lambda moment: f"{moment.isoformat()}Z") | st.sampled_from(
    ["2026-11-27T10:00:00+05:30", "2026-11-27 10:00:00Z", "2026-11-27T10:00:00", "1764237600", "9999-12-31T23:59:59Z"]
)
numbers = st.floats(allow_nan=False) | st.integers(-5, 2**65) | st.sampled_from([0, -0.0, 1e18, 2**62, 2**62 + 1])
values = st.none() | st.booleans() | numbers | st.text(max_size=5) | moments | st.lists(st.none(), max_size=2)


def rows(template: dict[str, Any], unusual: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[list[Any]]:
    """Lists of rows like the template, in some of which some fields have other values."""
    fields = {name: st.just(value) | unusual.get(name, values) for name, value in template.items()}
    return st.lists(st.fixed_dictionaries(fields, optional={"unknown": values}) | values, max_size=3)


ids = st.sampled_from(["", "dep_1", "a" * 200, "a" * 201, "nul \0", "\N{SNOWMAN}" * 200])
batches = st.fixed_dictionaries(
    {},
    optional={
        "readings": rows(
            READING | {"replica_id": "rep_1"},
            {
                "timestamp": moments,
                "values": st.dictionaries(ids, numbers, max_size=3),
                "deployment_id": ids,
                "replica_id": ids,
            },
        ),
        "latencies": rows(
            COUNT,
            {
                "timestamp": moments,
                "le": numbers | st.none(),
                "count": numbers,
                "deployment_id": ids,
                "replica_id": ids,
            },
        ),
        "unknown": values,
    },
)


@given(batches | values)
def test_any_batch_is_parsed_as_by_pydantic(batch: Any) -> None:
    body = json.dumps(batch).encode()
    assert outcome(parse_batch, body) == outcome(by_pydantic, body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nothing",
        b'{"readings": ["\\ud800"]}',
        b"[" * 50_000,
        b"\xff",
        b'{"read\xffings": []}',
        json.dumps({"readings": [READING]}).encode().replace(b"dep_1", b"dep_\xff"),
    ],
)
def test_text_that_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(ValidationError, match="Invalid JSON"):
        parse_batch(body)


@pytest.mark.parametrize(
    ("name", "change", "wrong"),
    [
        ("readings", {"values": {"throughput": -1}}, "greater than or equal to 0"),
        ("readings", {"values": {"throughput": 1.1e18}}, "less than or equal to 1000000000000000000"),
        ("readings", {"timestamp": "2026-11-27T10:00:00"}, "timezone"),
        ("readings", {"timestamp": "1969-12-31T23:59:59Z"}, "greater than or equal to"),
        ("latencies", {"timestamp": "9999-01-01T00:00:00Z"}, "less than"),
        ("latencies", {"le": 0}, "greater than 0"),
        ("latencies", {"count": 2**62 + 1}, "less than or equal to"),
        ("latencies", {"count": -1}, "greater than or equal to 0"),
    ],
)
def test_value_out_of_bounds_is_refused(name: str, change: dict[str, Any], wrong: str) -> None:
    row = (READING if name == "readings" else COUNT) | change
    with pytest.raises(ValidationError, match=wrong):
        parse_batch(json.dumps({name: [row]}).encode())


@pytest.mark.parametrize(("name", "row"), [("readings", READING), ("latencies", COUNT)])
def test_too_many_rows_are_refused(name: str, row: dict[str, Any]) -> None:
    row = row | ({"values": {"throughput": 1.0}} if name == "readings" else {})
    assert parse_batch(json.dumps({name: [row] * MOST_ROWS}).encode()).rows == MOST_ROWS
    with pytest.raises(ValidationError, match=f"at most {MOST_ROWS} items"):
        parse_batch(json.dumps({name: [row] * (MOST_ROWS + 1)}).encode())


def test_readings_with_too_many_values_together_are_refused() -> None:
    two = READING | {"values": {"throughput": 1.0, "gpu_utilization": 0.5}}
    most = [two] * (MOST_ROWS // 2)
    assert parse_batch(json.dumps({"readings": most}).encode()).rows == MOST_ROWS
    with pytest.raises(ValidationError, match=f"at most {MOST_ROWS} values together"):
        parse_batch(json.dumps({"readings": [*most, READING]}).encode())


def test_columns_have_a_row_for_each_value() -> None:
    body = json.dumps(
        {"readings": [READING, READING | {"deployment_id": "dep_2", "values": {"throughput": 1}}]}
    ).encode()
    samples = parse_batch(body).samples
    at = datetime(2026, 11, 27, 10, tzinfo=UTC)
    assert list(zip(*samples, strict=True)) == [
        ("dep_1", "", "throughput", at, 2.5),
        ("dep_1", "", "gpu_utilization", at, 0.5),
        ("dep_2", "", "throughput", at, 1.0),
    ]
