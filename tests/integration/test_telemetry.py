"""Telemetry that runtimes send, and what is computed from it; every figure is recomputed from what was sent."""

import re
import uuid
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import fmean
from typing import Any

import pytest

from fixtures import aws
from optiinfra.api.agents import AnalyzeAnswer, AnalyzeTask, Draft, JudgeAnswer, JudgeTask, Prediction, ValidateTask
from optiinfra.api.agents import Validation as AgentValidation
from optiinfra.api.common import now
from optiinfra.api.customers import Preferences
from optiinfra.api.parameters import SpotMigrationParameters
from optiinfra.api.telemetry import LatencyCount, Sample, TelemetryBatch
from testbed.waiting import wait_until
from tests.helpers import cloud_state
from tests.helpers.agents import ask_agent
from tests.helpers.callers import problem
from tests.helpers.cloud_state import HOURLY, HOURS_PER_MONTH
from tests.helpers.customer import Customer
from tests.helpers.runtime import PlayedRuntime, connected_runtime, customer_without_fleet, deployment
from tests.helpers.stores import Stores

pytestmark = pytest.mark.integration

INSTANCE_TYPE = "g5.xlarge"
EACH = round(HOURLY[INSTANCE_TYPE, "on-demand"] * HOURS_PER_MONTH, 2)
METRICS = ("throughput", "p95_latency_ms", "gpu_utilization", "quality_score")
PLATFORM_METRICS = ("monthly_cost", "quality_score")
"""What the platform establishes itself, and no runtime may send."""
SUMMED = ("throughput",)
"""The other metrics of the estate are averages over its deployments."""
MILLISECOND, MINUTE, HOUR, DAY = (
    timedelta(milliseconds=1),
    timedelta(minutes=1),
    timedelta(hours=1),
    timedelta(days=1),
)


@dataclass
class Sent:
    """A customer with two deployments, its runtime, and every distinct sample that the runtime sent."""

    customer: Customer
    runtime: PlayedRuntime
    stores: Stores
    chat: str
    batch: str
    present: datetime
    samples: list[Sample] = field(default_factory=list)

    def send(self, samples: Sequence[Sample], *, times: int = 1) -> None:
        """Send a batch, several times under one key. What a runtime may not send is stored as the platform does."""
        key = uuid.uuid4().hex
        if {one.metric for one in samples} <= set(PLATFORM_METRICS):
            self.stores.insert_samples(self.customer.id, samples)
        else:
            for _ in range(times):
                self.runtime.send(samples, key=key)
        self.samples += samples

    def expected(
        self, metric: str, resource: str | None, start: datetime, end: datetime
    ) -> list[tuple[datetime, float]]:
        """The series recomputed: mean of the replicas of each deployment, then the sum or mean of the deployments."""
        moments: dict[datetime, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for one in self.samples:
            if one.metric == metric and resource in (None, one.deployment_id) and start <= one.timestamp <= end:
                moments[one.timestamp][one.deployment_id].append(one.value)
        roll_up = sum if metric in SUMMED else fmean
        return [
            (moment, float(roll_up([fmean(values) for values in deployments.values()])))
            for moment, deployments in sorted(moments.items())
        ]

    def series(self, metric: str, **query: Any) -> list[dict[str, Any]]:
        """The points as the platform shows them."""
        moments = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in query.items()}
        found: list[dict[str, Any]] = self.customer.get(
            f"/customers/{self.customer.id}/metrics", metric_type=metric, **moments
        )
        return found

    def assert_series(self, metric: str, start: datetime, end: datetime, resource: str | None = None) -> None:
        query = {"start_time": start, "end_time": end} | ({"resource_id": resource} if resource else {})
        shown = self.series(metric, **query)
        expected = self.expected(metric, resource, start, end)
        seen = [(datetime.fromisoformat(point["timestamp"]), point["value"]) for point in shown]
        assert seen == [(moment, pytest.approx(value)) for moment, value in expected], metric
        assert {point["resource_id"] for point in shown} <= {resource or self.customer.id}
        scores = [point["value"] if metric == "quality_score" else None for point in shown]
        assert [point["score"] for point in shown] == scores


def sample(deployment_id: str, metric: str, at: datetime, value: float, replica: str = "") -> Sample:
    return Sample(deployment_id=deployment_id, replica_id=replica, metric=metric, timestamp=at, value=value)


def onboard(customer: Customer, runtime: PlayedRuntime, stores: Stores) -> Sent:
    """Two deployments of two instances and one."""
    (cloud,) = customer.seeded.clouds
    instance_ids = aws.start_instances(cloud_state.ec2(cloud), INSTANCE_TYPE, 3, "on-demand", {"Name": "played"})
    chat, batch = instance_ids[:2], instance_ids[2:]
    ids = runtime.report(deployment("chat", chat, INSTANCE_TYPE), deployment("batch", batch, INSTANCE_TYPE))
    body = {"cloud_provider": "aws", "region": cloud.region, "iam_role_arn": cloud.role_arn}
    customer.post(f"/customers/{customer.id}/onboard", body)
    moment = now()
    present = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    return Sent(customer, runtime, stores, ids["chat"], ids["batch"], present)


def check_series(sent: Sent) -> None:
    """Late and repeated samples of several replicas and deployments, read over windows of several widths."""
    began = sent.present - 30 * HOUR
    for number, metric in enumerate(METRICS):
        base = 0.1 * (number + 1)
        # Newest first; the second batch has the same moments again, from another replica and deployment.
        first = [sample(sent.chat, metric, began + hour * HOUR, base + 0.01 * hour, "rep-a") for hour in (3, 1, 0)]
        late = [sample(sent.chat, metric, began + HOUR, base / 2, "rep-b")]
        other = [sample(sent.batch, metric, began + hour * HOUR, base / 4) for hour in (1, 2)]
        sent.send(first)
        sent.send(late, times=3)
        sent.send(other)
    last = began + 3 * HOUR
    windows = [
        (began, last),
        (began + MILLISECOND, last),
        (began, last - MILLISECOND),
        (began + HOUR, began + HOUR),
        (began + HOUR + MILLISECOND, began + 2 * HOUR - MILLISECOND),
    ]
    for metric in METRICS:
        for start, end in windows:
            for resource in (None, sent.chat, sent.batch):
                sent.assert_series(metric, start, end, resource)
        window = {"start_time": began, "end_time": last}
        newest = sent.expected(metric, None, began, last)[-2:]
        limited = sent.series(metric, limit=2, **window)
        assert [datetime.fromisoformat(point["timestamp"]) for point in limited] == [moment for moment, _ in newest]
        assert [point["value"] for point in limited] == [pytest.approx(value) for _, value in newest], metric
        assert sent.series(metric, resource_id="dep_unknown", **window) == []


def check_default_window(sent: Sent) -> None:
    """Without times, the last eight days are shown, and nothing of the future."""
    eight_days = sent.present - 8 * DAY
    sent.send(
        [
            sample(sent.chat, "quality_score", at, 0.5)
            for at in (eight_days - HOUR, eight_days + HOUR, sent.present + HOUR)
        ]
    )
    shown = {datetime.fromisoformat(point["timestamp"]) for point in sent.series("quality_score")}
    assert min(shown) == eight_days + HOUR
    assert max(shown) <= now()


def check_costs(sent: Sent) -> None:
    """What the discovery stored: the cost of the estate, and of each deployment."""

    def last(**query: Any) -> list[float]:
        return [point["value"] for point in sent.series("monthly_cost", **query)][-1:]

    for query, count in (({}, 3), ({"resource_id": sent.chat}, 2), ({"resource_id": sent.batch}, 1)):
        wait_until(
            lambda query=query: last(**query),  # type: ignore[misc]  # bound now
            f"the cost of {count} instances",
            20,
            accept=lambda cost, count=count: cost == [pytest.approx(count * EACH, abs=0.01)],  # type: ignore[misc]
        )


def check_isolation(sent: Sent, other: PlayedRuntime, stranger: Customer) -> None:
    """Another customer's runtime cannot add to the figures, whatever ids it names; their keys are not its keys."""
    at, key = sent.present - 20 * HOUR, uuid.uuid4().hex
    sent.runtime.send([sample(sent.chat, "throughput", at, 1.0)], key=key)
    theirs_id = other.report(deployment("chat", ["i-1"], INSTANCE_TYPE))["chat"]
    assert theirs_id != sent.chat
    foreign = [sample(theirs_id, "throughput", at, 900.0), sample(sent.chat, "throughput", at, 900.0)]
    assert refusal(other, foreign, key=key) == (404, "not_found", f"no such deployment: {sent.chat}")
    not_theirs = PlayedRuntime(sent.runtime.runtime_id, other.http)
    assert refusal(not_theirs, foreign[:1], key=key) == (404, "not_found", "no such runtime")
    other.send(foreign[:1], key=key)
    sent.samples.append(sample(sent.chat, "throughput", at, 1.0))
    sent.assert_series("throughput", at, at, sent.chat)
    sent.assert_series("throughput", at, at)
    query = {"metric_type": "throughput", "start_time": at.isoformat(), "end_time": at.isoformat()}
    theirs = stranger.get(f"/customers/{stranger.id}/metrics", **query)
    assert [point["value"] for point in theirs] == [900.0], "the same key of another customer is another batch"
    refused = stranger.http.get(f"/customers/{sent.customer.id}/metrics", params=query)
    assert refused.status_code == 404


def refusal(runtime: PlayedRuntime, samples: Sequence[Sample], *, key: str | None = None) -> tuple[int, str, str]:
    """The problem with which a batch is answered."""
    body = TelemetryBatch.of(samples).model_dump(mode="json")
    headers = {} if key is None else {"Idempotency-Key": key}
    return problem(runtime.http.post(f"{runtime.path}/telemetry", json=body, headers=headers))


def check_refusals(sent: Sent) -> None:
    """The platform's own figures, unknown metrics and deployments, and a used key change nothing."""
    at, key = sent.present - 21 * HOUR, uuid.uuid4().hex
    good = sample(sent.chat, "throughput", at, 1.0)
    for metric in (*PLATFORM_METRICS, "temperature"):
        status, kind, detail = refusal(sent.runtime, [good, sample(sent.chat, metric, at, 1.0)], key=key)
        assert (status, kind) == (422, "invalid")
        assert f"may not send {metric};" in detail
    unknown = sample("dep_unknown", "throughput", at, 1.0)
    assert refusal(sent.runtime, [good, unknown], key=key) == (404, "not_found", "no such deployment: dep_unknown")
    sent.runtime.send([good], key=key)
    sent.samples.append(good)
    status, kind, detail = refusal(sent.runtime, [sample(sent.chat, "throughput", at, 2.0)], key=key)
    assert (status, kind) == (422, "idempotency_key_reused")
    assert "used for another batch" in detail
    for metric in METRICS:
        sent.assert_series(metric, at, at)


def send_load(sent: Sent) -> float:
    """The load of `chat`, now and in the week before; returns the mean of its busiest hour."""
    hour = sent.present.replace(minute=0, second=0, microsecond=0)
    two_days, three_days = hour - 48 * HOUR, hour - 72 * HOUR
    # The highest single sample is not in the busiest hour; the same hour of another day was quiet.
    throughput = [
        (two_days, 1.0),
        (two_days + HOUR - MILLISECOND, 1.4),
        (two_days + HOUR, 0.1),
        (two_days + 2 * HOUR - MILLISECOND, 2.0),
        (three_days, 0.2),
        (sent.present - 7 * DAY + HOUR, 0.3),
        (sent.present - 7 * DAY - HOUR, 50.0),
    ]
    recent = sent.present - MINUTE
    sent.send([sample(sent.chat, "throughput", at, value) for at, value in throughput])
    sent.send(
        [
            sample(sent.chat, "throughput", recent, 0.6),
            sample(sent.chat, "throughput", recent + MILLISECOND, 0.8),
            sample(sent.chat, "gpu_utilization", recent, 0.5, "rep-a"),
            sample(sent.chat, "gpu_utilization", recent, 0.7, "rep-b"),
            sample(sent.chat, "kv_cache_usage", recent, 0.25),
            sample(sent.chat, "requests_running", recent, 1.0),
            sample(sent.chat, "requests_waiting", recent, 1.0, "rep-a"),
            sample(sent.chat, "requests_waiting", recent, 2.0, "rep-b"),
            sample(sent.chat, "prompt_tokens_per_request", recent, 400.0),
            sample(sent.chat, "output_tokens_per_request", recent, 150.0),
            # Too old to be recent.
            sample(sent.chat, "gpu_utilization", sent.present - 8 * MINUTE, 0.0),
            sample(sent.chat, "requests_waiting", sent.present - 8 * MINUTE, 90.0),
        ]
    )
    return fmean([1.0, 1.4])


def check_utilization(sent: Sent) -> None:
    """The resource agent reports means of the last minutes, or of the week where nothing was measured since."""
    task = AnalyzeTask(
        task_id=uuid.uuid4().hex,
        customer_id=sent.customer.id,
        preferences=Preferences(),
        infrastructure=sent.customer.infrastructure(),
    )
    summary = ask_agent(sent.customer.environment, "resource", task, AnalyzeAnswer).summary
    week = sent.present - 7 * DAY
    mean = {
        metric: fmean(
            one.value
            for one in sent.samples
            if (one.deployment_id, one.metric) == (sent.batch, metric) and one.timestamp > week
        )
        for metric in ("gpu_utilization", "throughput")
    }
    batch = f"batch (1 replicas): GPUs {mean['gpu_utilization']:.0%} busy, {mean['throughput']:.2f} requests per second"
    chat = (
        "chat (2 replicas): GPUs 60% busy, KV cache 25% full, 1.5 requests waiting per replica, "
        "0.70 requests per second"
    )
    assert summary == f"{batch}; {chat}"


def check_busiest_hour(sent: Sent, busiest: float) -> None:
    """The performance agent plans for the mean of the busiest hour, not for the mean or the peak of the week."""
    estate = sent.customer.infrastructure()
    found = estate.deployment(sent.chat)
    parameters = SpotMigrationParameters(
        deployment=found.name,
        provider=found.provider,
        region=found.region,
        instance_type=INSTANCE_TYPE,
        count=2,
        source_instance_ids=[engine.instance_id for engine in found.engines],
        spot_price=0.4,
        ondemand_price=1.0,
        interruptions_per_month=0.1,
    )
    draft = Draft(
        type="spot_migration",
        title="t",
        explanation="e",
        risk_level="low",
        confidence=0.5,
        estimated_savings=1.0,
        predicted=Prediction(monthly_cost=1.0, p95_latency_ms=None, quality_score=None),
        affected_resources=[],
        deployment_id=sent.chat,
        parameters=parameters.model_dump(),
        modelled={},
        features=[],
        similar_outcomes=[],
    )
    task = ValidateTask(task_id=uuid.uuid4().hex, customer_id=sent.customer.id, draft=draft, infrastructure=estate)
    reason = ask_agent(sent.customer.environment, "performance", task, AgentValidation).reason
    planned = re.search(r"busiest hour's (\S+) requests per second each serves (\S+) of its capacity", reason)
    assert planned is not None, reason
    assert planned.groups() == (f"{busiest:.2f}", f"{busiest:.2f}"), reason


def check_latencies(sent: Sent) -> None:
    """A stage is judged by the latencies of its replicas since it began, each counted once."""
    since = sent.present - 2 * MINUTE
    counts = {1.0: 90, 2.0: 10}
    """Requests by the upper edge of their bucket: the 95th percentile is in the middle of the second one."""

    def count(replica: str, at: datetime, edge: float | None, requests: int, of: str = sent.chat) -> LatencyCount:
        return LatencyCount(deployment_id=of, replica_id=replica, timestamp=at, le=edge, count=requests)

    judged = [count("rep-a", since, 1.0, 60), count("rep-b", since + MINUTE, 1.0, 30)]
    later = [count("rep-b", since + MILLISECOND, 2.0, 10)]
    others = [
        count("rep-a", since - MILLISECOND, 5.0, 1000),
        count("rep-old", since + MINUTE, 5.0, 1000),
        count("rep-a", since + MINUTE, None, 1000, sent.batch),
    ]
    sent.runtime.send(latencies=later, key=uuid.uuid4().hex)
    key = uuid.uuid4().hex
    for _ in range(3):
        sent.runtime.send(latencies=judged, key=key)
    sent.runtime.send(latencies=others)
    task = JudgeTask(
        task_id=uuid.uuid4().hex,
        customer_id=sent.customer.id,
        deployment_id=sent.chat,
        stage="canary",
        since=since,
        replica_ids=["rep-a", "rep-b"],
        slo_p95_latency_ms=2000.0,
        slo_quality=0.9,
        baseline_quality=0.9,
        look=1,
    )
    verdict = ask_agent(sent.customer.environment, "performance", task, JudgeAnswer)
    assert verdict.observations == sum(counts.values())
    assert verdict.estimate == pytest.approx(1500.0)


@pytest.mark.slow
def test_telemetry_is_stored_once_and_rolled_up(environment: dict[str, Any]) -> None:
    with (
        customer_without_fleet(environment) as customer,
        customer_without_fleet(environment) as stranger,
        connected_runtime(customer) as runtime,
        connected_runtime(stranger) as other,
        closing(Stores(environment)) as stores,
    ):
        sent = onboard(customer, runtime, stores)
        check_series(sent)
        check_default_window(sent)
        check_costs(sent)
        check_isolation(sent, other, stranger)
        check_refusals(sent)
        busiest = send_load(sent)
        check_utilization(sent)
        check_busiest_hour(sent, busiest)
        check_latencies(sent)
