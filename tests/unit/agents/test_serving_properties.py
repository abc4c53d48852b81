"""What holds of the agents' model of serving, whatever the engine, the work and the load."""

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
anything = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.integers(), max_size=2)
    | st.sampled_from(["fp8", "awq", "auto", 10**400, 2**70])
)


@st.composite
def engines(draw: st.DrawFn) -> Engine:
    """One that fits its instance."""
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
    models,
    types,
    st.dictionaries(
        st.sampled_from(
            ["tensor_parallel_size", "gpu_memory_utilization", "max_num_seqs", "kv_cache_dtype", "quantization", "x"]
        ),
        anything,
    ),
    st.tuples(*[st.floats()] * 3),
    st.floats(),
    st.floats(),
)
def test_what_is_not_modelled_is_said_in_words(
    model: str, instance_type: str, args: dict[str, Any], tokens: tuple[float, float, float], load: float, seen: float
) -> None:
    try:
        engine, work = Engine.of(model, instance_type, args), Work(*tokens)
    except ModelError as error:
        assert str(error)
        return
    assert engine.cache_bytes > 0
    assert engine.places(work) >= 1
    assert engine.capacity(work) > 0
    engine.calibrated(work, load, seen).under(work, load)


@given(engines(), works, shares, shares)
def test_more_load_is_never_faster(engine: Engine, work: Work, one: float, other: float) -> None:
    capacity, (less, more) = engine.capacity(work), sorted((one, other))
    calm, busy = engine.under(work, less * capacity), engine.under(work, more * capacity)
    assert calm is not None
    assert busy is not None
    assert 0 < calm.seconds <= busy.seconds * (1 + SAME)
    assert 0 < calm.utilization <= busy.utilization < 1
    # Little's law, and a batch never holds more than has a place.
    assert busy.in_engine == pytest.approx(more * capacity * busy.seconds)
    assert engine.under(work, capacity) is None


@given(engines(), works, st.floats(1, 1000))
def test_more_work_a_request_is_fewer_requests(engine: Engine, work: Work, more: float) -> None:
    longer = Work(work.computed_tokens + more, work.prompt_tokens + more, work.output_tokens + more)
    cached = replace(work, computed_tokens=0.0)
    assert engine.capacity(longer) <= engine.capacity(work) * (1 + SAME)
    assert engine.capacity(cached) >= engine.capacity(work) * (1 - SAME)


@given(engines(), works, shares, st.floats(0.7, 7.5))
def test_calibration_finds_an_engine_of_any_slowness(engine: Engine, work: Work, share: float, slowness: float) -> None:
    real = replace(engine, slowness=slowness)
    load = share * real.capacity(work)
    seen = real.under(work, load)
    assert seen is not None
    found = engine.calibrated(work, load, seen.in_engine)
    assert found.slowness == pytest.approx(slowness, rel=1e-3)
