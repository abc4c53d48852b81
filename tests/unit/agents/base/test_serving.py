"""The performance model of an LLM engine."""

import pytest

from optiinfra.agents.base.serving import Engine, ModelError, Work
from tests.unit.agents.estate import ENGINE_ARGS

MODEL = "meta-llama/Llama-3.1-70B-Instruct"
WORK = Work(800, 800, 200)


def engine(**changes: object) -> Engine:
    return Engine.of(MODEL, "p5.48xlarge", ENGINE_ARGS | changes)


def test_8b_model_on_one_h100_decodes_at_the_published_speed() -> None:
    one = Engine.of("meta-llama/Llama-3.1-8B-Instruct", "p5.4xlarge", {})
    alone = one.under(Work(0, 1, 1000), 1e-6)
    assert alone is not None
    assert 0.005 < alone.seconds / 1000 < 0.015  # seconds a token; llm-d-inference-sim has 10-15 ms with a batch


def test_latency_grows_with_load_up_to_the_capacity() -> None:
    capacity = engine().capacity(WORK)
    seconds = [state.seconds for share in (0.1, 0.5, 0.9, 0.99) if (state := engine().under(WORK, share * capacity))]
    assert len(seconds) == 4
    assert seconds == sorted(seconds)
    assert engine().under(WORK, capacity) is None


def test_quantized_weights_and_cache_raise_the_capacity() -> None:
    assert engine(quantization="fp8").capacity(WORK) > engine().capacity(WORK)
    long = Work(16_000, 16_000, 500)
    assert engine(kv_cache_dtype="fp8").slots(long) > 1.9 * engine().slots(long)


def test_calibration_reproduces_the_observed_requests_in_engine() -> None:
    slow = engine().calibrated(WORK, 5.0, 30.0)
    state = slow.under(WORK, 5.0)
    assert state is not None
    assert state.in_engine == pytest.approx(30.0, rel=0.01)
    assert slow.slowness > 1
    assert slow.capacity(WORK) < engine().capacity(WORK)


@pytest.mark.parametrize(
    ("model", "instance_type", "args", "wrong"),
    [
        ("who/knows", "p5.48xlarge", {}, "unknown model who/knows"),
        (MODEL, "t3.micro", {}, "unknown instance type t3.micro"),
        (MODEL, "g5.xlarge", {}, "does not fit g5.xlarge"),
        ("meta-llama/Llama-3.1-8B-Instruct", "g5.xlarge", {"tensor_parallel_size": 2}, "does not fit"),
        (MODEL, "p5.48xlarge", {"quantization": "int3"}, "unknown quantization 'int3'"),
        (MODEL, "p5.48xlarge", {"quantization": ["fp8"]}, "quantization .*valid string"),
        (MODEL, "p5.48xlarge", {"tensor_parallel_size": "all"}, "tensor_parallel_size 'all'"),
        (MODEL, "p5.48xlarge", {"tensor_parallel_size": 0}, "tensor_parallel_size 0"),
        (MODEL, "p5.48xlarge", {"tensor_parallel_size": 10**400}, "tensor_parallel_size 1000"),
        (MODEL, "p5.48xlarge", {"max_num_seqs": 10**12}, "max_num_seqs 1000"),
        (MODEL, "p5.48xlarge", {"gpu_memory_utilization": 90}, "gpu_memory_utilization 90"),
    ],
)
def test_invalid_engine_is_a_model_error(model: str, instance_type: str, args: dict[str, object], wrong: str) -> None:
    with pytest.raises(ModelError, match=wrong):
        Engine.of(model, instance_type, args)


def test_missing_argument_has_vllms_default() -> None:
    given: dict[str, object] = {"quantization": None, "max_num_seqs": None, "served_model_name": "mine"}
    assert engine(**given) == engine(max_num_seqs=256)


@pytest.mark.parametrize(
    "tokens", [(0, 0, 0), (800, 800, 0), (-1, 800, 200), (800, 700, 200), (0, 0, 1e-300), (1e200, 1e200, 200)]
)
def test_implausible_tokens_are_a_model_error(tokens: tuple[float, float, float]) -> None:
    with pytest.raises(ModelError, match="cannot be modelled"):
        Work(*tokens)


def test_fully_cached_prompt_raises_the_capacity() -> None:
    assert engine().capacity(Work(0, 800, 200)) > engine().capacity(WORK)
