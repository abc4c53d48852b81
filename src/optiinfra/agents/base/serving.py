"""Performance model of an LLM engine: capacity and latency by a roofline with continuous batching. No I/O.

First principles: a decode step reads all weights that it needs and the KV cache of every running sequence once (memory
bandwidth), or computes 2 FLOP per weight and sequence (compute), whichever takes longer. A prompt is prefilled at
2 FLOP per weight and token. Prefill and decode share the engine's time, and the KV cache limits the batch. Once the
batch is full, requests queue as in M/M/c (Erlang C) with one server for each slot of the batch.

The efficiencies are rules of thumb; `calibrated` corrects them by what is measured of an engine.
Units: seconds, bytes, tokens, requests per second.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError

from optiinfra.domain.hardware import INSTANCE_TYPES, MODELS, bytes_per_kv_element, bytes_per_weight

# Shares of the data sheet's peak that serving engines are commonly reported to reach.
BANDWIDTH_SHARE = 0.6
COMPUTE_SHARE = 0.45
# Limits of calibration: an engine may be much slower than the roofline, but cannot exceed the full bandwidth.
_SLOWEST, _FASTEST = 8.0, BANDWIDTH_SHARE
# Plausible mean tokens per request. Values outside are wrong measurements, and would overflow the arithmetic.
_FEWEST_TOKENS, _MOST_TOKENS = 1e-3, 1e9


class ModelError(ValueError):
    """The engine cannot be modelled; the text names what is unknown or does not fit."""


class _EngineArgs(BaseModel):
    """The vLLM arguments that the model uses, with vLLM's defaults."""

    tensor_parallel_size: int = Field(default=1, ge=1, le=1024)
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    max_num_seqs: int = Field(default=256, ge=1, le=100_000)
    kv_cache_dtype: str = "auto"
    quantization: str | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """The mean request: prompt tokens not in the prefix cache, all prompt tokens, and output tokens.

    ModelError if there are no output tokens, or the figures are not plausible.
    """

    computed_tokens: float
    prompt_tokens: float
    output_tokens: float

    def __post_init__(self) -> None:
        plausible_output = _FEWEST_TOKENS <= self.output_tokens <= _MOST_TOKENS
        if not (plausible_output and _MOST_TOKENS >= self.prompt_tokens >= self.computed_tokens >= 0):
            raise ModelError(
                f"requests of {self.prompt_tokens:g} prompt tokens, {self.computed_tokens:g} of them to compute, "
                f"and {self.output_tokens:g} output tokens cannot be modelled"
            )


@dataclass(frozen=True, slots=True)
class Operation:
    """A steady state: mean seconds that a request spends in the engine, mean requests in it, utilization 0..1."""

    seconds: float
    in_engine: float
    utilization: float


@dataclass(frozen=True, slots=True)
class Engine:
    """One replica. `slowness` multiplies all times; 1 is what the data sheets say."""

    bandwidth: float
    flops: float
    weight_bytes: float
    active_share: float
    active_parameters: float
    kv_bytes_per_token: float
    cache_bytes: float
    max_num_seqs: int
    slowness: float = 1.0

    @classmethod
    def of(cls, model: str, instance_type: str, engine_args: Mapping[str, Any]) -> Self:
        """The engine that these vLLM arguments start; ModelError if something is unknown or does not fit."""
        if model not in MODELS:
            raise ModelError(f"unknown model {model}; known: {', '.join(MODELS)}")
        if instance_type not in INSTANCE_TYPES:
            raise ModelError(f"unknown instance type {instance_type}; known: {', '.join(INSTANCE_TYPES)}")
        try:
            args = _EngineArgs.model_validate({name: value for name, value in engine_args.items() if value is not None})
            weight = bytes_per_weight(args.quantization)
        except ValidationError as error:
            wrong = "; ".join(f"{item['loc'][0]} {item['input']!r}: {item['msg']}" for item in error.errors())
            raise ModelError(f"invalid engine arguments: {wrong}") from error
        except ValueError as error:
            raise ModelError(str(error)) from error
        facts, machine = MODELS[model], INSTANCE_TYPES[instance_type]
        gpus, gpu, weights = args.tensor_parallel_size, machine.gpu, facts.parameters * weight
        cache = gpus * gpu.memory * args.gpu_memory_utilization - weights
        if gpus > machine.gpu_count or cache <= 0:
            raise ModelError(f"{model} with tensor_parallel_size {gpus} does not fit {instance_type}")
        return cls(
            bandwidth=gpus * gpu.bandwidth * BANDWIDTH_SHARE,
            flops=gpus * gpu.flops * COMPUTE_SHARE,
            weight_bytes=weights,
            active_share=facts.active_parameters / facts.parameters,
            active_parameters=facts.active_parameters,
            kv_bytes_per_token=facts.kv_elements_per_token * bytes_per_kv_element(args.kv_cache_dtype),
            cache_bytes=cache,
            max_num_seqs=args.max_num_seqs,
        )

    def slots(self, work: Work) -> int:
        """Sequences that run at once: limited by the scheduler, and by the KV cache at half of the output."""
        held = (work.prompt_tokens + work.output_tokens / 2) * self.kv_bytes_per_token
        return max(1, min(self.max_num_seqs, int(self.cache_bytes / held)))

    def capacity(self, work: Work) -> float:
        """Requests per second with all slots taken; above it the queue grows without limit."""
        slots = self.slots(work)
        return 1.0 / (self._prefill(work) + work.output_tokens * self._step(slots, work) / slots)

    def under(self, work: Work, load: float) -> Operation | None:
        """The steady state under `load` requests per second; None if that is above the capacity."""
        capacity = self.capacity(work)
        if load >= capacity:
            return None
        slots, free = self.slots(work), 1.0 - load * self._prefill(work)
        low, high = 0.0, float(slots)
        for _ in range(40):  # bisection of Little's law: running = load x time in decode at that batch
            batch = (low + high) / 2
            decoding = load * work.output_tokens * self._step(batch, work) / free
            low, high = (batch, high) if decoding > batch else (low, batch)
        service = (self._prefill(work) + work.output_tokens * self._step(high, work)) / free
        utilization = load / capacity
        queued = _erlang_c(slots, utilization) * service / (slots * (1.0 - utilization))
        return Operation(service + queued, load * (service + queued), utilization)

    def calibrated(self, work: Work, load: float, in_engine: float) -> Self:
        """The engine with the slowness at which it holds `in_engine` requests under `load`, as was measured."""
        low, high = _FASTEST, _SLOWEST
        for _ in range(30):
            slowness = (low * high) ** 0.5
            seen = replace(self, slowness=slowness).under(work, load)
            too_slow = seen is None or seen.in_engine > in_engine
            low, high = (low, slowness) if too_slow else (slowness, high)
        return replace(self, slowness=low)

    def _prefill(self, work: Work) -> float:
        return self.slowness * 2.0 * self.active_parameters * work.computed_tokens / self.flops

    def _step(self, batch: float, work: Work) -> float:
        # In a mixture of experts each sequence uses some experts: a step reads those that at least one of them uses.
        touched = 1.0 - math.pow(1.0 - self.active_share, max(1.0, batch))
        context = work.prompt_tokens + work.output_tokens / 2
        reading = (self.weight_bytes * touched + batch * context * self.kv_bytes_per_token) / self.bandwidth
        computing = 2.0 * self.active_parameters * batch / self.flops
        return self.slowness * max(reading, computing)


def _erlang_c(servers: int, utilization: float) -> float:
    """Probability that a request finds all servers busy in M/M/c."""
    offered, blocked = servers * utilization, 1.0
    for server in range(1, servers + 1):
        blocked = offered * blocked / (server + offered * blocked)
    return blocked / (1.0 - utilization * (1.0 - blocked))
