"""Scraping of several deployments: timestamps, rates, own requests, unreadable engines."""

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from optiinfra.runtime import collect, scrape
from optiinfra.runtime.collect import Collector, Scraped
from optiinfra.runtime.gateway import GatewayDeployment
from tests.unit.logs import logged
from tests.unit.runtime.fleet import FakeGateway, exposition

pytestmark = pytest.mark.anyio
AT = datetime(2026, 11, 1, tzinfo=UTC)
IDS = {"chat": "dep_1", "search": "dep_2"}


class TimedGateway(FakeGateway):
    """Two deployments behind a slow gateway: each exposition takes a second of `clock`."""

    clock = 100.0
    seconds_an_exposition = 1.0
    while_fetching = ExitStack()
    """Closed when the next exposition was given."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        answer = super().__call__(request)
        if request.url.path.endswith("/metrics"):
            self.clock += self.seconds_an_exposition
            self.while_fetching.close()
        return answer


@pytest.fixture
def gateway() -> TimedGateway:
    made = TimedGateway(weights={"r1": 1.0}, finished={"r1": 100, "s1": 100}, speed=1.0)
    replica: dict[str, Any] = made.deployment()["replicas"][0] | {"replica_id": "s1", "instance_id": "i-s1"}
    made.others = [made.deployment() | {"name": "search", "weights": {"s1": 1.0}, "replicas": [replica]}]
    return made


@pytest.fixture
def collector(gateway: TimedGateway) -> Collector:
    return Collector(gateway.connect(), lambda: gateway.clock)


def throughput(found: Scraped) -> dict[str, float]:
    return {sample.deployment_id: sample.value for sample in found.samples if sample.metric == "throughput"}


def counted(found: Scraped) -> dict[str, int]:
    return {
        deployment: sum(count.count for count in found.latencies if count.deployment_id == deployment)
        for deployment in IDS.values()
    }


async def test_scrape_gives_all_figures_one_timestamp_however_long_fetching_takes(
    gateway: TimedGateway, collector: Collector
) -> None:
    await collector.scrape(IDS)  # its clock is 100, two slow expositions later it is 102
    gateway.finished, gateway.clock, gateway.seconds_an_exposition = {"r1": 120, "s1": 140}, 110.0, 7.0
    found = await collector.scrape(IDS)
    assert throughput(found) == {"dep_1": pytest.approx(2.0), "dep_2": pytest.approx(4.0)}
    assert len({sample.timestamp for sample in found.samples} | {count.timestamp for count in found.latencies}) == 1


async def test_scrape_skips_deployments_without_a_platform_id(collector: Collector) -> None:
    await collector.scrape({"chat": "dep_1"})
    assert collector.deployments == {"chat"}


async def test_own_requests_suppress_the_figures_of_overlapping_intervals(
    gateway: TimedGateway, collector: Collector
) -> None:
    async def scrape_at(clock: float, **finished: int) -> Scraped:
        gateway.clock, gateway.finished = clock, finished
        return await collector.scrape(IDS)

    await scrape_at(100, r1=100, s1=100)
    with collector.excluding_own_requests("chat"):
        assert counted(await scrape_at(110, r1=150, s1=110)) == {"dep_1": 0, "dep_2": 10}
        gateway.clock = 115
    ended = await scrape_at(120, r1=190, s1=120)
    assert {sample.deployment_id for sample in ended.samples} == {"dep_2"}
    assert counted(ended) == {"dep_1": 0, "dep_2": 10}
    clean = await scrape_at(130, r1=200, s1=130)
    assert counted(clean) == {"dep_1": 10, "dep_2": 10}
    assert throughput(clean) == {"dep_1": pytest.approx(1.0), "dep_2": pytest.approx(1.0)}


async def test_own_requests_within_one_interval_suppress_its_figures(
    gateway: TimedGateway, collector: Collector
) -> None:
    await collector.scrape(IDS)
    with collector.excluding_own_requests("chat"), collector.excluding_own_requests("chat"):
        gateway.clock = 105
    gateway.clock, gateway.finished = 110, {"r1": 150, "s1": 100}
    assert counted(await collector.scrape(IDS))["dep_1"] == 0
    gateway.clock, gateway.finished = 120, {"r1": 155, "s1": 100}
    assert counted(await collector.scrape(IDS))["dep_1"] == 5


async def test_own_requests_that_end_during_a_scrape_suppress_the_next_interval(
    gateway: TimedGateway, collector: Collector
) -> None:
    await collector.scrape(IDS)
    gateway.while_fetching.enter_context(collector.excluding_own_requests("chat"))
    gateway.clock, gateway.finished = 110, {"r1": 150, "s1": 100}
    assert counted(await collector.scrape(IDS))["dep_1"] == 0
    gateway.clock, gateway.finished = 120, {"r1": 190, "s1": 100}  # the prompts' last answers are among these
    assert counted(await collector.scrape(IDS))["dep_1"] == 0
    gateway.clock, gateway.finished = 130, {"r1": 195, "s1": 100}
    assert counted(await collector.scrape(IDS))["dep_1"] == 5


async def test_own_requests_of_an_engine_that_was_unreadable_meanwhile_are_not_counted(
    gateway: TimedGateway, collector: Collector
) -> None:
    await collector.scrape(IDS)
    with collector.excluding_own_requests("chat"):
        gateway.answers = {"/r1/metrics": b"<html>"}
    for gateway.clock in (110, 120):
        await collector.scrape(IDS)
    gateway.clock, gateway.answers, gateway.finished = 130, {}, {"r1": 190, "s1": 100}
    assert counted(await collector.scrape(IDS))["dep_1"] == 0
    gateway.clock, gateway.finished = 140, {"r1": 193, "s1": 100}
    assert counted(await collector.scrape(IDS))["dep_1"] == 3


async def test_unreadable_metrics_are_logged_once_and_do_not_affect_other_engines(
    gateway: TimedGateway, collector: Collector
) -> None:
    await collector.scrape(IDS)
    gateway.answers = {"/r1/metrics": b"<html>not metrics</html>"}
    with logged(collect) as logs:
        for finished in (110, 120):
            gateway.clock, gateway.finished = gateway.clock + 10, {"r1": finished, "s1": finished}
            assert counted(await collector.scrape(IDS)) == {"dep_1": 0, "dep_2": 10}
    assert [(entry["replica_id"], entry["log_level"]) for entry in logs] == [("r1", "warning")]
    gateway.answers = {"/r1/metrics": exposition(125).encode()}
    assert counted(await collector.scrape(IDS))["dep_1"] == 25


def processed(collector: Collector, gateway: FakeGateway, clock: float, **finished: int) -> Scraped:
    readings = {replica: scrape.parse(exposition(count)) for replica, count in finished.items()}
    return collector.process(GatewayDeployment.model_validate(gateway.deployment()), "dep_1", readings, clock, AT)


def figures(batch: Scraped) -> dict[str, float]:
    return {sample.metric: sample.value for sample in batch.samples if not sample.replica_id}


def test_process_gives_rates_per_simulated_second_and_ignores_earlier_requests() -> None:
    gateway = FakeGateway(speed=100.0)
    collector = Collector(gateway.connect())
    first = processed(collector, gateway, 10.0, r1=100, r2=300)
    assert (figures(first), first.latencies) == ({}, [])
    second = processed(collector, gateway, 12.0, r1=150, r2=350)
    assert figures(second)["throughput"] == pytest.approx(100 / (2.0 * 100.0))
    assert 500 < figures(second)["p95_latency_ms"] <= 1000
    assert sum(count.count for count in second.latencies) == 100
    assert {count.replica_id for count in second.latencies} == {"r1", "r2"}


def test_process_counts_a_replica_added_later_from_its_start() -> None:
    gateway = FakeGateway()
    collector = Collector(gateway.connect())
    processed(collector, gateway, 0.0, r1=100, r2=100)
    gateway.weights["r3"] = 0.0
    batch = processed(collector, gateway, 2.0, r1=100, r2=100, r3=9)
    assert [(count.replica_id, count.count) for count in batch.latencies if count.count] == [("r3", 9)]


def test_process_quick_scrapes_give_one_rate_and_lose_no_request() -> None:
    gateway = FakeGateway(speed=1.0)
    collector = Collector(gateway.connect())
    processed(collector, gateway, 0.0, r1=100)
    hasty = processed(collector, gateway, 0.1, r1=110)
    assert figures(hasty) == {}
    assert [(count.le, count.count) for count in hasty.latencies] == [(0.5, 0), (1.0, 10)]
    assert figures(processed(collector, gateway, 2.0, r1=120)) == {
        "throughput": pytest.approx(10.0),
        "prompt_tokens_per_request": 800.0,
        "output_tokens_per_request": 200.0,
        "mean_latency_ms": pytest.approx(750.0),
        "p95_latency_ms": pytest.approx(975.0),
    }


def test_process_accumulates_requests_until_there_are_enough_for_a_percentile() -> None:
    gateway = FakeGateway()
    collector = Collector(gateway.connect())
    processed(collector, gateway, 0.0, r1=100)
    assert "p95_latency_ms" not in figures(processed(collector, gateway, 2.0, r1=119))
    assert figures(processed(collector, gateway, 4.0, r1=120)).get("p95_latency_ms") == pytest.approx(975.0)
    assert "p95_latency_ms" not in figures(processed(collector, gateway, 6.0, r1=139)), "each request counts once"
