"""A deployment's 95th percentile and headroom when its load is spread over other numbers of replicas."""

from dataclasses import dataclass

from optiinfra.agents.base.observed import Load
from optiinfra.agents.base.serving import Engine, ModelError, Work
from optiinfra.api.customers import Deployment

TAIL = 1.6
"""95th percentile over mean where none was measured: answers differ in length by about a third."""
_LEAST_TAIL, _GREATEST_TAIL = 1.1, 4.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """Per replica: load and capacity in requests a second, 95th percentile in milliseconds (None past capacity)."""

    load: float
    capacity: float
    p95_latency_ms: float | None

    @property
    def utilization(self) -> float:
        """Share of the capacity that is used."""
        return self.load / self.capacity


@dataclass(frozen=True, slots=True)
class ServingForecast:
    """The model of one deployment's engines, fitted to what they are seen to do."""

    engine: Engine
    work: Work
    tail: float

    def at(self, requests_per_second: float, replicas: int) -> Forecast:
        """What to expect when so much load is spread evenly over so many replicas."""
        load = requests_per_second / replicas
        operation = self.engine.under(self.work, load)
        p95 = None if operation is None else 1000.0 * operation.seconds * self.tail
        return Forecast(load, self.engine.capacity(self.work), p95)


def fit(deployment: Deployment, instance_type: str, replicas: int, load: Load) -> ServingForecast:
    """Model a deployment; ModelError when model or type is unknown, or nothing was measured yet."""
    if load.requests_per_second is None or load.prompt_tokens is None or load.output_tokens is None:
        raise ModelError(f"the traffic of {deployment.name} has not been measured yet")
    work = Work(load.prompt_tokens * (1.0 - load.cache_hit_rate), load.prompt_tokens, load.output_tokens)
    engine, share = (
        Engine.of(deployment.model, instance_type, deployment.engine_args),
        load.requests_per_second / replicas,
    )
    # Little's law: a mean over every request tells more than gauges that were looked at now and then.
    in_engine = load.in_engine if load.mean_latency_ms is None else share * load.mean_latency_ms / 1000.0
    if in_engine and share > 0:
        engine = engine.calibrated(work, share, in_engine)
    operation, tail = engine.under(work, share), TAIL
    if operation is not None and load.p95_latency_ms:
        tail = load.p95_latency_ms / 1000.0 / operation.seconds
    return ServingForecast(engine, work, min(_GREATEST_TAIL, max(_LEAST_TAIL, tail)))
