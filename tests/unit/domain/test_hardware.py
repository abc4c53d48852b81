import pytest

from optiinfra.domain import hardware


def test_bytes_per_weight_of_unknown_quantization_names_the_known() -> None:
    assert hardware.bytes_per_weight(None) == 2.0
    assert hardware.bytes_per_weight("fp8") == 1.0
    with pytest.raises(ValueError, match="unknown quantization 'fp7'; known: null, fp8"):
        hardware.bytes_per_weight("fp7")


def test_fp8_halves_the_kv_cache() -> None:
    assert hardware.bytes_per_kv_element("fp8_e5m2") * 2 == hardware.bytes_per_kv_element("auto")


def test_models_of_the_contract_are_known() -> None:
    assert {
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Llama-3.1-70B-Instruct",
        "mistralai/Mistral-7B-Instruct-v0.3",
        "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "Qwen/Qwen2.5-32B-Instruct",
        "deepseek-ai/DeepSeek-V2-Lite",
    } <= hardware.MODELS.keys()


@pytest.mark.parametrize("model", hardware.MODELS.values(), ids=lambda model: model.name)
def test_model_figures_are_plausible(model: hardware.Model) -> None:
    assert 1e8 < model.active_parameters <= model.parameters < 2e12
    assert model.kv_elements_per_token % model.layers == 0


@pytest.mark.parametrize("machine", hardware.INSTANCE_TYPES.values(), ids=lambda machine: machine.name)
def test_instance_type_figures_are_plausible(machine: hardware.InstanceType) -> None:
    assert machine.gpu_count in (1, 2, 4, 8)
    # A byte is read in the time of at least ten operations on every card there is: decoding is bound by memory.
    assert machine.gpu.flops > 10 * machine.gpu.bandwidth
    # Reading all of its memory takes a card between 10 and 100 ms.
    assert 0.01 < machine.gpu.memory / machine.gpu.bandwidth < 0.1
