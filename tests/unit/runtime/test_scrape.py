"""Parsing of expositions, and the interval between two scrapes."""

import math

import pytest

from optiinfra.runtime import scrape
from tests.unit.runtime.fleet import exposition


def test_parse_reads_vllm_and_dcgm_metrics() -> None:
    reading = scrape.parse(exposition(100, slow=10))
    assert scrape.gauges(reading) == {
        "gpu_utilization": pytest.approx(0.5),
        "kv_cache_usage": 0.25,
        "requests_running": 3.0,
        "requests_waiting": 1.0,
    }
    assert reading.values["finished"] == 100
    assert reading.latency == {0.5: 0, 1.0: 90, 2.0: 0, math.inf: 10}


def test_parse_reads_nothing_of_other_metrics() -> None:
    text = exposition(100)
    others = "go_threads{ not closed\n", "vllm:lora_requests_info{ not closed\n"
    assert scrape.parse(text.join(others)) == scrape.parse(text)


@pytest.mark.parametrize("text", ["", "go_threads 8\n"])
def test_parse_without_known_metrics_has_no_figures(text: str) -> None:
    interval = scrape.since(None, scrape.parse(text))
    assert (scrape.rates(interval, 2.0), interval.latency) == ({}, {})


def test_since_counts_only_the_difference() -> None:
    interval = scrape.since(scrape.parse(exposition(100)), scrape.parse(exposition(130, slow=5)))
    assert interval.finished == 30
    assert interval.latency == {0.5: 0, 1.0: 25, 2.0: 0, math.inf: 5}
    assert scrape.rates(interval, 60.0) == {
        "throughput": 0.5,
        "prompt_tokens_per_request": 800.0,
        "output_tokens_per_request": 200.0,
        "mean_latency_ms": pytest.approx((25 * 750 + 5 * 9000) / 30),
    }


def test_since_after_a_restart_counts_from_zero() -> None:
    interval = scrape.since(scrape.parse(exposition(100)), scrape.parse(exposition(7, slow=2)))
    assert interval.finished == 7
    assert interval.latency == {0.5: 0, 1.0: 5, 2.0: 0, math.inf: 2}


def test_since_detects_a_restart_by_buckets_when_the_total_has_caught_up() -> None:
    interval = scrape.since(scrape.parse(exposition(100, slow=60)), scrape.parse(exposition(101, slow=2)))
    assert interval.finished == 101


def test_rates_of_an_idle_interval_have_no_tokens_per_request() -> None:
    reading = scrape.parse(exposition(5))
    assert scrape.rates(scrape.since(reading, reading), 10.0) == {"throughput": 0.0}


def without(name: str, text: str) -> str:
    """The exposition without one metric."""
    return "\n".join(line for line in text.splitlines() if name not in line) + "\n"


def test_rates_without_a_counter_leave_its_figures_out() -> None:
    name = "vllm:prompt_tokens_total"
    before, after = (scrape.parse(without(name, exposition(count))) for count in (100, 130))
    shown = scrape.rates(scrape.since(before, after), 60.0)
    known = {"output_tokens_per_request": 200.0, "mean_latency_ms": pytest.approx(750.0)}
    assert shown == {"throughput": 0.5, **known}
    # If one engine does not expose it, the deployment's sum is unknown.
    whole = scrape.since(scrape.parse(exposition(100)), scrape.parse(exposition(130)))
    whole.add(scrape.since(before, after))
    assert scrape.rates(whole, 60.0) == {"throughput": 1.0, **known}


def test_since_a_scrape_without_a_counter_does_not_count_its_past() -> None:
    name = "vllm:prompt_tokens_total"
    first, second, third = exposition(100), without(name, exposition(110)), exposition(120)
    gone = scrape.since(scrape.parse(first), scrape.parse(second))
    assert (gone.finished, sum(gone.latency.values()), math.isnan(gone.prompt_tokens)) == (10, 10, True)
    back = scrape.since(scrape.parse(second), scrape.parse(third))
    assert (back.finished, math.isnan(back.prompt_tokens)) == (10, True)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "1e300", "-1"])
def test_parse_leaves_out_implausible_gauges(value: str) -> None:
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
        ('vllm:e2e_request_latency_seconds_bucket{le="NaN"} 1.0\n', "not a positive number of seconds"),
        ('vllm:e2e_request_latency_seconds_bucket{le="-1.0"} 1.0\n', "not a positive number of seconds"),
        (
            'vllm:e2e_request_latency_seconds_bucket{le="1.0"} 5.0\n'
            'vllm:e2e_request_latency_seconds_bucket{le="2.0"} 3.0\n',
            "counts 3 up to 2 s, after 5",
        ),
    ],
)
def test_parse_invalid_exposition_is_a_value_error(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        scrape.parse(text)
