"""Reading expositions, and what happened between two of them."""

import math
from datetime import UTC, datetime

import pytest

from optiinfra.runtime import scrape
from optiinfra.runtime.collect import Collector, Round
from optiinfra.runtime.gateway import GatewayDeployment
from tests.unit.runtime.fleet import FakeGateway, exposition

AT = datetime(2026, 11, 1, tzinfo=UTC)


def test_an_exposition_is_read_by_vllms_and_dcgms_names() -> None:
    reading = scrape.parse(exposition(100, slow=10))
    assert scrape.gauges(reading) == {
        "gpu_utilization": pytest.approx(0.5),
        "kv_cache_usage": 0.25,
        "requests_running": 3.0,
        "requests_waiting": 1.0,
    }
    assert reading.values["finished"] == 100
    assert reading.latency == {0.5: 0, 1.0: 90, 2.0: 0, math.inf: 10}


def test_between_two_scrapes_only_what_is_new_counts() -> None:
    interval = scrape.since(scrape.parse(exposition(100)), scrape.parse(exposition(130, slow=5)))
    assert interval.finished == 30
    assert interval.latency == {0.5: 0, 1.0: 25, 2.0: 0, math.inf: 5}
    assert scrape.rates(interval, 60.0) == {
        "throughput": 0.5,
        "prompt_tokens_per_request": 800.0,
        "output_tokens_per_request": 200.0,
        "mean_latency_ms": pytest.approx((25 * 750 + 5 * 9000) / 30),
    }


def test_an_engine_that_restarted_counts_from_zero() -> None:
    interval = scrape.since(scrape.parse(exposition(100)), scrape.parse(exposition(7, slow=2)))
    assert interval.finished == 7
    assert interval.latency == {0.5: 0, 1.0: 5, 2.0: 0, math.inf: 2}


def test_a_restart_shows_in_the_buckets_even_where_the_total_has_caught_up() -> None:
    interval = scrape.since(scrape.parse(exposition(100, slow=60)), scrape.parse(exposition(101, slow=2)))
    assert interval.finished == 101


def test_an_idle_interval_has_no_tokens_a_request() -> None:
    reading = scrape.parse(exposition(5))
    assert scrape.rates(scrape.since(reading, reading), 10.0) == {"throughput": 0.0}


def without(name: str, text: str) -> str:
    """An exposition in which a figure is missing."""
    return "\n".join(line for line in text.splitlines() if name not in line) + "\n"


def test_a_counter_that_is_not_shown_is_unknown_not_nothing() -> None:
    name = "vllm:prompt_tokens_total"
    before, after = (scrape.parse(without(name, exposition(count))) for count in (100, 130))
    shown = scrape.rates(scrape.since(before, after), 60.0)
    known = {"output_tokens_per_request": 200.0, "mean_latency_ms": pytest.approx(750.0)}
    assert shown == {"throughput": 0.5, **known}
    # One engine that keeps it to itself makes the deployment's sum unknown.
    whole = scrape.since(scrape.parse(exposition(100)), scrape.parse(exposition(130)))
    whole.add(scrape.since(before, after))
    assert scrape.rates(whole, 60.0) == {"throughput": 1.0, **known}


def test_a_counter_that_was_away_for_a_moment_brings_back_no_past() -> None:
    name = "vllm:prompt_tokens_total"
    first, second, third = exposition(100), without(name, exposition(110)), exposition(120)
    gone = scrape.since(scrape.parse(first), scrape.parse(second))
    assert (gone.finished, sum(gone.latency.values()), math.isnan(gone.prompt_tokens)) == (10, 10, True)
    back = scrape.since(scrape.parse(second), scrape.parse(third))
    assert (back.finished, math.isnan(back.prompt_tokens)) == (10, True)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "1e300", "-1"])
def test_what_is_no_plausible_number_is_no_figure(value: str) -> None:
    text = exposition(100).replace('kv_cache_usage_perc{engine="0"} 0.25', f'kv_cache_usage_perc{{engine="0"}} {value}')
    text = text.replace('DCGM_FI_DEV_GPU_UTIL{gpu="1"} 60', f'DCGM_FI_DEV_GPU_UTIL{{gpu="1"}} {value}')
    assert scrape.gauges(scrape.parse(text)) == {
        "gpu_utilization": pytest.approx(0.4),
        "requests_running": 3.0,
        "requests_waiting": 1.0,
    }


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("<html>", "<html>"),
        ('vllm:e2e_request_latency_seconds_bucket{engine="0"} 1.0\n', "missing"),
        ('vllm:e2e_request_latency_seconds_bucket{le="1.0"} NaN\n', "counts nan up to 1 s"),
        ('vllm:e2e_request_latency_seconds_bucket{le="1.0"} +Inf\n', "counts inf up to 1 s"),
        ('vllm:e2e_request_latency_seconds_bucket{le="1.0"} 1e300\n', "counts 1e\\+300 up to 1 s"),
        ('vllm:e2e_request_latency_seconds_bucket{le="NaN"} 1.0\n', "no positive number of seconds"),
        ('vllm:e2e_request_latency_seconds_bucket{le="-1.0"} 1.0\n', "no positive number of seconds"),
        (
            'vllm:e2e_request_latency_seconds_bucket{le="1.0"} 5.0\n'
            'vllm:e2e_request_latency_seconds_bucket{le="2.0"} 3.0\n',
            "counts 3 up to 2 s, after 5",
        ),
    ],
)
def test_what_is_no_exposition_is_said_so(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        scrape.parse(text)


def taken(collector: Collector, gateway: FakeGateway, clock: float, **finished: int) -> Round:
    readings = {replica: scrape.parse(exposition(count)) for replica, count in finished.items()}
    return collector.take(GatewayDeployment.model_validate(gateway.deployment()), "dep_1", readings, clock, AT)


def figures(batch: Round) -> dict[str, float]:
    return {sample.metric: sample.value for sample in batch.samples if not sample.replica_id}


def test_rates_are_for_simulated_seconds_and_the_past_is_not_ours() -> None:
    gateway = FakeGateway(speed=100.0)
    collector = Collector(gateway.connect())
    first = taken(collector, gateway, 10.0, r1=100, r2=300)
    assert (figures(first), first.latencies) == ({}, [])
    second = taken(collector, gateway, 12.0, r1=150, r2=350)
    assert figures(second)["throughput"] == pytest.approx(100 / (2.0 * 100.0))
    assert 500 < figures(second)["p95_latency_ms"] <= 1000
    assert sum(count.count for count in second.latencies) == 100
    assert {count.replica_id for count in second.latencies} == {"r1", "r2"}


def test_a_replica_added_later_is_counted_from_its_start() -> None:
    gateway = FakeGateway()
    collector = Collector(gateway.connect())
    taken(collector, gateway, 0.0, r1=100, r2=100)
    gateway.weights["r3"] = 0.0
    batch = taken(collector, gateway, 2.0, r1=100, r2=100, r3=9)
    assert [(count.replica_id, count.count) for count in batch.latencies if count.count] == [("r3", 9)]


def test_scrapes_in_quick_succession_give_one_rate_and_lose_nothing() -> None:
    gateway = FakeGateway(speed=1.0)
    collector = Collector(gateway.connect())
    taken(collector, gateway, 0.0, r1=100)
    hasty = taken(collector, gateway, 0.1, r1=110)
    assert figures(hasty) == {}
    assert [(count.le, count.count) for count in hasty.latencies] == [(0.5, 0), (1.0, 10)]
    assert figures(taken(collector, gateway, 2.0, r1=120)) == {
        "throughput": pytest.approx(10.0),
        "prompt_tokens_per_request": 800.0,
        "output_tokens_per_request": 200.0,
        "mean_latency_ms": pytest.approx(750.0),
        "p95_latency_ms": pytest.approx(975.0),
    }


def test_few_requests_have_no_percentile_until_they_are_enough() -> None:
    gateway = FakeGateway()
    collector = Collector(gateway.connect())
    taken(collector, gateway, 0.0, r1=100)
    assert "p95_latency_ms" not in figures(taken(collector, gateway, 2.0, r1=119))
    assert figures(taken(collector, gateway, 4.0, r1=120)).get("p95_latency_ms") == pytest.approx(975.0)
    assert "p95_latency_ms" not in figures(taken(collector, gateway, 6.0, r1=139)), "each request counts once"
