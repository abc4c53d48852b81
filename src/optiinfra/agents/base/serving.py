"""How much load an LLM engine carries, and how long requests take: a roofline with continuous batching. Pure.

First principles: a decode step reads all weights it needs and the KV cache of every running sequence once (memory
bandwidth), or computes 2 FLOP a weight and sequence (compute), whichever takes longer; a prompt is prefilled at
2 FLOP a weight and token. Prefill and decode share the engine's time, and the KV cache bounds the batch. Once the
batch is full, requests queue as in M/M/c (Erlang C) with a place in the batch as server.

The efficiencies are rules of thumb; `calibrated` makes up for what they leave out, from what an engine is seen to do.
Seconds, bytes, tokens, requests a second.
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
# An observed engine may be much slower than the roofline, but no faster than all of the bandwidth.
_SLOWEST, _FASTEST = 8.0, BANDWIDTH_SHARE
# Means over requests that anybody has seen; what lies outside was measured wrongly, and no float could work with it.
_FEWEST_TOKENS, _MOST_TOKENS = 1e-3, 1e9


class ModelError(ValueError):
    """The engine cannot be modelled; the text says what is unknown or does not fit."""


class _EngineArgs(BaseModel):
    """The arguments that count here, with vLLM's own defaults."""

    tensor_parallel_size: int = Field(default=1, ge=1, le=1024)
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    max_num_seqs: int = Field(default=256, ge=1, le=100_000)
    kv_cache_dtype: str = "auto"
    quantization: str | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """The mean request: prompt tokens that no prefix cache holds, all prompt tokens, and tokens answered.

    ModelError when nothing is answered, such requests cost no time that could be modelled, or more than can be.
    """

    computed_tokens: float
    prompt_tokens: float
    output_tokens: float

    def __post_init__(self) -> None:
        answered = _FEWEST_TOKENS <= self.output_tokens <= _MOST_TOKENS
        if not (answered and _MOST_TOKENS >= self.prompt_tokens >= self.computed_tokens >= 0):
            raise ModelError(
                f"requests of {self.prompt_tokens:g} prompt tokens, {self.computed_tokens:g} of them to compute, "
                f"and {self.output_tokens:g} answered tokens cannot be modelled"
            )


@dataclass(frozen=True, slots=True)
class Operation:
    """A steady state: mean seconds a request spends in the engine, requests in it, share of capacity used."""

    seconds: float
    in_engine: float
    utilization: float


@dataclass(frozen=True, slots=True)
class Engine:
    """One replica. `slowness` stretches every time; 1 is what the data sheets promise."""

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
        """The engine that these (vLLM) arguments start; ModelError when something is unknown or does not fit."""
        if model not in MODELS:
            raise ModelError(f"unknown model {model}; known: {', '.join(MODELS)}")
        if instance_type not in INSTANCE_TYPES:
            raise ModelError(f"unknown instance type {instance_type}; known: {', '.join(INSTANCE_TYPES)}")
        try:
            args = _EngineArgs.model_validate({name: value for name, value in engine_args.items() if value is not None})
            weight = bytes_per_weight(args.quantization)
        except ValidationError as error:
            wrong = "; ".join(f"{item['loc'][0]} {item['input']!r}: {item['msg']}" for item in error.errors())
            raise ModelError(f"engine arguments that no engine takes: {wrong}") from error
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

    def places(self, work: Work) -> int:
        """Sequences that run at once: what the scheduler allows, and what the cache holds half way through."""
        held = (work.prompt_tokens + work.output_tokens / 2) * self.kv_bytes_per_token
        return max(1, min(self.max_num_seqs, int(self.cache_bytes / held)))

    def capacity(self, work: Work) -> float:
        """Requests a second with every place taken, beyond which the queue grows without end."""
        places = self.places(work)
        return 1.0 / (self._prefill(work) + work.output_tokens * self._step(places, work) / places)

    def under(self, work: Work, load: float) -> Operation | None:
        """The steady state under `load` requests a second; None when that is past the capacity."""
        capacity = self.capacity(work)
        if load >= capacity:
            return None
        places, free = self.places(work), 1.0 - load * self._prefill(work)
        low, high = 0.0, float(places)
        for _ in range(40):  # bisection of Little's law: running = load x time in decode at that batch
            batch = (low + high) / 2
            decoding = load * work.output_tokens * self._step(batch, work) / free
            low, high = (batch, high) if decoding > batch else (low, batch)
        service = (self._prefill(work) + work.output_tokens * self._step(high, work)) / free
        utilization = load / capacity
        queued = _erlang_c(places, utilization) * service / (places * (1.0 - utilization))
        return Operation(service + queued, load * (service + queued), utilization)

    def calibrated(self, work: Work, load: float, in_engine: float) -> Self:
        """The engine as slow or fast as it must be to hold `in_engine` requests under `load` (as observed)."""
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
        # In a mixture of experts every sequence picks its own: a step reads what at least one of them picked.
        touched = 1.0 - math.pow(1.0 - self.active_share, max(1.0, batch))
        context = work.prompt_tokens + work.output_tokens / 2
        reading = (self.weight_bytes * touched + batch * context * self.kv_bytes_per_token) / self.bandwidth
        computing = 2.0 * self.active_parameters * batch / self.flops
        return self.slowness * max(reading, computing)


def _erlang_c(servers: int, utilization: float) -> float:
    """Chance that a request finds every server busy in M/M/c."""
    offered, blocked = servers * utilization, 1.0
    for server in range(1, servers + 1):
        blocked = offered * blocked / (server + offered * blocked)
    return blocked / (1.0 - utilization * (1.0 - blocked))
