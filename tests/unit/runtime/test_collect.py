"""Rounds over several deployments: one moment for all, what is ours left out, what cannot be read not in the way."""

from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from optiinfra.runtime import collect
from optiinfra.runtime.collect import Collector, Round
from tests.unit.logs import logged
from tests.unit.runtime.fleet import FakeGateway, exposition

pytestmark = pytest.mark.anyio
IDS = {"chat": "dep_1", "search": "dep_2"}


class TimedGateway(FakeGateway):
    """Two deployments behind a gateway that takes its time: each exposition takes a second of `clock`."""

    clock = 100.0
    seconds_an_exposition = 1.0
    while_fetching = ExitStack()
    """What ends when the next exposition has been made."""

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


def throughput(found: Round) -> dict[str, float]:
    return {sample.deployment_id: sample.value for sample in found.samples if sample.metric == "throughput"}


def counted(found: Round) -> dict[str, int]:
    return {
        deployment: sum(count.count for count in found.latencies if count.deployment_id == deployment)
        for deployment in IDS.values()
    }


async def test_a_round_is_one_moment_whatever_the_fetching_takes(gateway: TimedGateway, collector: Collector) -> None:
    await collector.round(IDS)  # its clock is 100, two slow expositions later it is 102
    gateway.finished, gateway.clock, gateway.seconds_an_exposition = {"r1": 120, "s1": 140}, 110.0, 7.0
    found = await collector.round(IDS)
    assert throughput(found) == {"dep_1": pytest.approx(2.0), "dep_2": pytest.approx(4.0)}
    assert len({sample.timestamp for sample in found.samples} | {count.timestamp for count in found.latencies}) == 1


async def test_a_deployment_that_the_platform_does_not_know_is_not_scraped(collector: Collector) -> None:
    await collector.round({"chat": "dep_1"})
    assert collector.watched == {"chat"}


async def test_intervals_that_golden_prompts_reach_into_report_nothing_of_the_deployment(
    gateway: TimedGateway, collector: Collector
) -> None:
    async def look(clock: float, **finished: int) -> Round:
        gateway.clock, gateway.finished = clock, finished
        return await collector.round(IDS)

    await look(100, r1=100, s1=100)
    with collector.leaving_out("chat"):
        assert counted(await look(110, r1=150, s1=110)) == {"dep_1": 0, "dep_2": 10}
        gateway.clock = 115
    ended = await look(120, r1=190, s1=120)
    assert {sample.deployment_id for sample in ended.samples} == {"dep_2"}
    assert counted(ended) == {"dep_1": 0, "dep_2": 10}
    clean = await look(130, r1=200, s1=130)
    assert counted(clean) == {"dep_1": 10, "dep_2": 10}
    assert throughput(clean) == {"dep_1": pytest.approx(1.0), "dep_2": pytest.approx(1.0)}


async def test_golden_prompts_within_one_interval_are_left_out_too(gateway: TimedGateway, collector: Collector) -> None:
    await collector.round(IDS)
    with collector.leaving_out("chat"), collector.leaving_out("chat"):
        gateway.clock = 105
    gateway.clock, gateway.finished = 110, {"r1": 150, "s1": 100}
    assert counted(await collector.round(IDS))["dep_1"] == 0
    gateway.clock, gateway.finished = 120, {"r1": 155, "s1": 100}
    assert counted(await collector.round(IDS))["dep_1"] == 5


async def test_prompts_that_end_while_a_round_is_fetched_are_in_the_next_interval(
    gateway: TimedGateway, collector: Collector
) -> None:
    await collector.round(IDS)
    gateway.while_fetching.enter_context(collector.leaving_out("chat"))
    gateway.clock, gateway.finished = 110, {"r1": 150, "s1": 100}
    assert counted(await collector.round(IDS))["dep_1"] == 0
    gateway.clock, gateway.finished = 120, {"r1": 190, "s1": 100}  # the prompts' last answers are among these
    assert counted(await collector.round(IDS))["dep_1"] == 0
    gateway.clock, gateway.finished = 130, {"r1": 195, "s1": 100}
    assert counted(await collector.round(IDS))["dep_1"] == 5


async def test_an_engine_that_was_away_while_prompts_were_asked_brings_back_none_of_them(
    gateway: TimedGateway, collector: Collector
) -> None:
    await collector.round(IDS)
    with collector.leaving_out("chat"):
        gateway.answers = {"/r1/metrics": b"<html>"}
    for gateway.clock in (110, 120):
        await collector.round(IDS)
    gateway.clock, gateway.answers, gateway.finished = 130, {}, {"r1": 190, "s1": 100}
    assert counted(await collector.round(IDS))["dep_1"] == 0
    gateway.clock, gateway.finished = 140, {"r1": 193, "s1": 100}
    assert counted(await collector.round(IDS))["dep_1"] == 3


async def test_metrics_that_cannot_be_read_are_said_once_and_keep_nobody_else_from_being_counted(
    gateway: TimedGateway, collector: Collector
) -> None:
    await collector.round(IDS)
    gateway.answers = {"/r1/metrics": b"<html>not metrics</html>"}
    with logged(collect) as logs:
        for finished in (110, 120):
            gateway.clock, gateway.finished = gateway.clock + 10, {"r1": finished, "s1": finished}
            assert counted(await collector.round(IDS)) == {"dep_1": 0, "dep_2": 10}
    assert [(entry["replica_id"], entry["log_level"]) for entry in logs] == [("r1", "warning")]
    gateway.answers = {"/r1/metrics": exposition(125).encode()}
    assert counted(await collector.round(IDS))["dep_1"] == 25
