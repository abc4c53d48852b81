"""Properties of parsing any exposition, and of any three scrapes of an engine."""

import math
from itertools import accumulate

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from optiinfra.api.common import now
from optiinfra.api.telemetry import LatencyCount, Sample
from optiinfra.runtime import scrape

EDGES = (0.5, 1.0, 2.5, 10.0, math.inf)
COUNTERS = {
    "finished": "vllm:request_success_total",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "output_tokens": "vllm:generation_tokens_total",
    "latency_seconds": "vllm:e2e_request_latency_seconds_sum",
}

names = st.sampled_from([*scrape.SUMS, *scrape.MEANS, scrape.LATENCY])
labels = st.sampled_from(["", "{}", "{", '{le="1.0"}', '{le="NaN"}', '{le="+Inf"}', '{le="x"}', "{le=1}", '{a="\\"}'])
values = st.sampled_from(["1", "0", "1e400", "1e308", "-5", "NaN", "+Inf", "-Inf", "x", "", "1 2", "0x1"])
lines = st.builds("{}{} {}".format, names | st.text(max_size=5), labels, values)
buckets = st.builds(
    f'{scrape.LATENCY}{{{{le="{{}}"}}}} {{}}'.format,
    st.sampled_from(["-1", "0", "0.5", "1", "2", "+Inf", "NaN"]),
    st.sampled_from(["0", "1", "5", "1e300"]),
)
others = st.text(max_size=20) | st.sampled_from(["# HELP", "# TYPE a", "# TYPE a counter", "#", "# EOF"])


@settings(max_examples=500)
@given((st.lists(buckets, max_size=4) | st.lists(lines | others, max_size=6)).map("\n".join))
def test_any_exposition_is_refused_or_gives_valid_telemetry(text: str) -> None:
    try:
        reading = scrape.parse(text)
    except ValueError:
        return
    interval = scrape.since(None, reading)
    for value in (*scrape.gauges(reading).values(), *scrape.rates(interval, 2.0).values()):
        Sample(deployment_id="dep_1", metric="m", timestamp=now(), value=value)
    for edge, count in interval.latency.items():
        LatencyCount(deployment_id="dep_1", replica_id="r", timestamp=now(), le=scrape.bucket_edge(edge), count=count)


steps = st.tuples(
    st.lists(st.integers(0, 500), min_size=len(EDGES), max_size=len(EDGES)),
    st.tuples(*[st.integers(0, 10_000)] * len(COUNTERS)),
)


def exposition(buckets: list[int], counters: list[int]) -> str:
    """The exposition of an engine with these counts: requests by bucket, and the other counters."""
    shown = [f"{name} {value}" for name, value in zip(COUNTERS.values(), counters, strict=True)]
    for edge, below in zip(EDGES, accumulate(buckets), strict=True):
        shown.append(f'{scrape.LATENCY}{{le="{"+Inf" if math.isinf(edge) else edge}"}} {below}')
    return "\n".join(shown) + "\n"


def readings(*grown: tuple[list[int], tuple[int, ...]]) -> list[scrape.Reading]:
    """The readings of an engine whose counters grow by these steps."""
    buckets, counters, found = [0] * len(EDGES), [0] * len(COUNTERS), []
    for by_bucket, by_counter in grown:
        buckets = [old + new for old, new in zip(buckets, by_bucket, strict=True)]
        counters = [old + new for old, new in zip(counters, by_counter, strict=True)]
        found.append(scrape.parse(exposition(buckets, counters)))
    return found


@given(steps)
def test_parse_reads_the_exposed_values(step: tuple[list[int], tuple[int, ...]]) -> None:
    (reading,) = readings(step)
    assert list(reading.latency.values()) == step[0]
    assert [reading.values[name] for name in COUNTERS] == list(step[1])


@given(steps, steps)
def test_since_is_the_difference_of_two_readings(
    first: tuple[list[int], tuple[int, ...]], second: tuple[list[int], tuple[int, ...]]
) -> None:
    interval = scrape.since(*readings(first, second))
    assert [interval.latency.get(edge, 0) for edge in EDGES] == second[0]
    assert [getattr(interval, name) for name in COUNTERS] == list(second[1])
    again, same = readings(first, ([0] * len(EDGES), (0,) * len(COUNTERS)))
    nothing = scrape.since(again, same)
    assert (nothing.latency, nothing.finished) == ({}, 0)


@given(steps, steps, steps)
def test_consecutive_intervals_add_up(
    first: tuple[list[int], tuple[int, ...]],
    second: tuple[list[int], tuple[int, ...]],
    third: tuple[list[int], tuple[int, ...]],
) -> None:
    one, two, three = readings(first, second, third)
    both, whole = scrape.since(one, two), scrape.since(one, three)
    both.add(scrape.since(two, three))
    filled = {edge: count for edge, count in both.latency.items() if count}
    assert filled == {edge: count for edge, count in whole.latency.items() if count}
    for name in COUNTERS:
        assert getattr(both, name) == pytest.approx(getattr(whole, name))


@given(steps, steps)
def test_since_after_a_restart_is_the_whole_reading(
    before: tuple[list[int], tuple[int, ...]], after: tuple[list[int], tuple[int, ...]]
) -> None:
    (old,), (new,) = readings(before), readings(after)
    assume(any(new.values[name] < old.values[name] for name in COUNTERS))
    interval = scrape.since(old, new)
    assert [getattr(interval, name) for name in COUNTERS] == list(after[1])
    assert [interval.latency.get(edge, 0) for edge in EDGES] == after[0]
