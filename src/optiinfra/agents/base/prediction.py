"""Prediction of a deployment's 95th-percentile latency and utilization for other loads and replica counts."""

from dataclasses import dataclass

from optiinfra.agents.base.observed import Load
from optiinfra.agents.base.serving import Engine, ModelError, Work
from optiinfra.api.customers import Deployment

TAIL = 1.6
"""Ratio of 95th percentile to mean latency if none was measured: answers differ in length by about a third."""
_LEAST_TAIL, _GREATEST_TAIL = 1.1, 4.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """Per replica: load and capacity in requests per second, 95th percentile in milliseconds (None above capacity)."""

    load: float
    capacity: float
    p95_latency_ms: float | None

    @property
    def utilization(self) -> float:
        """Share of the capacity that is used."""
        return self.load / self.capacity


@dataclass(frozen=True, slots=True)
class ServingForecast:
    """The performance model of one deployment's engines, fitted to measurements."""

    engine: Engine
    work: Work
    tail: float

    def at(self, requests_per_second: float, replicas: int) -> Forecast:
        """The forecast for a load spread evenly over a number of replicas."""
        load = requests_per_second / replicas
        operation = self.engine.under(self.work, load)
        p95 = None if operation is None else 1000.0 * operation.seconds * self.tail
        return Forecast(load, self.engine.capacity(self.work), p95)


def fit(deployment: Deployment, instance_type: str, replicas: int, load: Load) -> ServingForecast:
    """Fit the model to a deployment; ModelError if model or instance type is unknown or its traffic is unmeasured."""
    if load.requests_per_second is None or load.prompt_tokens is None or load.output_tokens is None:
        raise ModelError(f"the traffic of {deployment.name} has not been measured yet")
    work = Work(load.prompt_tokens * (1.0 - load.cache_hit_rate), load.prompt_tokens, load.output_tokens)
    engine, share = (
        Engine.of(deployment.model, instance_type, deployment.engine_args),
        load.requests_per_second / replicas,
    )
    # Little's law: a mean over all requests is more accurate than gauges that are sampled now and then.
    in_engine = load.in_engine if load.mean_latency_ms is None else share * load.mean_latency_ms / 1000.0
    if in_engine and share > 0:
        engine = engine.calibrated(work, share, in_engine)
    operation, tail = engine.under(work, share), TAIL
    if operation is not None and load.p95_latency_ms:
        tail = load.p95_latency_ms / 1000.0 / operation.seconds
    return ServingForecast(engine, work, min(_GREATEST_TAIL, max(_LEAST_TAIL, tail)))
