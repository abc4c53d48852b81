"""Properties of the performance model for any engine, work and load."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from optiinfra.agents.base.serving import Engine, ModelError, Work
from optiinfra.domain.hardware import INSTANCE_TYPES, MODELS

SAME = 1e-9

models, types = st.sampled_from(sorted(MODELS)), st.sampled_from(sorted(INSTANCE_TYPES))
works = st.builds(
    lambda prompt, computed, output: Work(prompt * computed, prompt, output),
    prompt=st.floats(1, 16_000),
    computed=st.floats(0, 1),
    output=st.floats(1, 4_000),
)
shares = st.floats(0.001, 0.999)
odd: list[Any] = [None, True, 0, 1, 8, -1, 2**70, 10**400, 0.9, "fp8", "auto", "", [1], {}]
anything = st.sampled_from(odd) | st.integers() | st.floats()
tokens = st.sampled_from([0.0, 5e-324, 1e-300, 1.0, 800.0, 1e9, 1e200, math.inf, math.nan]) | st.floats()


@st.composite
def engines(draw: st.DrawFn) -> Engine:
    """An engine that fits its instance."""
    args = {
        "tensor_parallel_size": draw(st.sampled_from([1, 4, 8])),
        "quantization": draw(st.sampled_from([None, "fp8", "int4"])),
        "kv_cache_dtype": draw(st.sampled_from(["auto", "fp8"])),
        "max_num_seqs": draw(st.integers(1, 512)),
    }
    try:
        return Engine.of(draw(models), draw(types), args)
    except ModelError:
        assume(False)
        raise


@settings(max_examples=300)
@given(
    st.just("meta-llama/Llama-3.1-8B-Instruct"),
    types,
    st.dictionaries(
        st.sampled_from(
            ["tensor_parallel_size", "gpu_memory_utilization", "max_num_seqs", "kv_cache_dtype", "quantization", "x"]
        ),
        anything,
    ),
    st.tuples(tokens, tokens, tokens),
    st.floats(),
    st.floats(),
)
def test_any_input_is_modelled_or_a_model_error(
    model: str, instance_type: str, args: dict[str, Any], tokens: tuple[float, float, float], load: float, seen: float
) -> None:
    try:
        engine, work = Engine.of(model, instance_type, args), Work(*tokens)
    except ModelError:
        return
    assert engine.cache_bytes > 0
    assert engine.slots(work) >= 1
    assert engine.capacity(work) > 0
    engine.calibrated(work, load, seen).under(work, load)


@given(engines(), works, shares, shares)
def test_more_load_never_lowers_latency(engine: Engine, work: Work, one: float, other: float) -> None:
    capacity, (less, more) = engine.capacity(work), sorted((one, other))
    calm, busy = engine.under(work, less * capacity), engine.under(work, more * capacity)
    assert calm is not None
    assert busy is not None
    assert 0 < calm.seconds <= busy.seconds * (1 + SAME)
    assert 0 < calm.utilization <= busy.utilization < 1
    # Little's law, and a batch never holds more than has a place.
    assert busy.in_engine == pytest.approx(more * capacity * busy.seconds)
    assert engine.under(work, capacity) is None
    brimming = engine.under(work, (1 - 1e-6) * capacity)
    assert brimming is not None
    assert brimming.seconds > 100 * calm.seconds, "a request that finds nearly all slots taken waits"


@given(engines(), works, st.floats(1, 1000))
def test_more_work_per_request_lowers_the_capacity(engine: Engine, work: Work, more: float) -> None:
    longer = Work(work.computed_tokens + more, work.prompt_tokens + more, work.output_tokens + more)
    cached = replace(work, computed_tokens=0.0)
    assert engine.capacity(longer) <= engine.capacity(work) * (1 + SAME)
    assert engine.capacity(cached) >= engine.capacity(work) * (1 - SAME)


@given(engines(), works, shares, st.floats(0.7, 7.5))
def test_calibration_finds_the_slowness_of_an_engine(engine: Engine, work: Work, share: float, slowness: float) -> None:
    real = replace(engine, slowness=slowness)
    load = share * real.capacity(work)
    seen = real.under(work, load)
    assert seen is not None
    found = engine.calibrated(work, load, seen.in_engine)
    assert found.slowness == pytest.approx(slowness, rel=1e-3)
