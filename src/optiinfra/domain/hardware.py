"""Facts about GPUs, cloud instance types and models. Figures are the vendors' own, dense (no sparsity)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """One accelerator: memory in bytes, bandwidth in bytes a second, dense BF16 compute in FLOP a second."""

    name: str
    memory: float
    bandwidth: float
    flops: float
    fp8: bool


@dataclass(frozen=True, slots=True)
class InstanceType:
    """One cloud instance type and the accelerators in it."""

    name: str
    provider: str
    gpu: Gpu
    gpu_count: int


@dataclass(frozen=True, slots=True)
class Model:
    """One language model.

    `parameters` counts all weights, `active_parameters` those used per token (fewer in a mixture of experts), and
    `kv_elements_per_token` the elements that the KV cache stores per token.
    """

    name: str
    parameters: float
    active_parameters: float
    kv_elements_per_token: int
    layers: int


# Sources: NVIDIA's data sheets of each card (memory, bandwidth, BF16 tensor throughput without sparsity).
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("A100-40GB", 40e9, 1555e9, 312e12, fp8=False),
        Gpu("A100-80GB", 80e9, 2039e9, 312e12, fp8=False),
        Gpu("H100", 80e9, 3350e9, 989e12, fp8=True),
        Gpu("H200", 141e9, 4800e9, 989e12, fp8=True),
        Gpu("A10G", 24e9, 600e9, 70e12, fp8=False),
        Gpu("L4", 24e9, 300e9, 121e12, fp8=True),
        Gpu("L40S", 48e9, 864e9, 362e12, fp8=True),
    )
}


def _family(family: str, gpu: str, sizes: dict[str, int]) -> dict[str, InstanceType]:
    return {
        f"{family}.{size}": InstanceType(f"{family}.{size}", "aws", GPUS[gpu], count) for size, count in sizes.items()
    }


_G_SIZES = {
    "xlarge": 1,
    "2xlarge": 1,
    "4xlarge": 1,
    "8xlarge": 1,
    "12xlarge": 4,
    "16xlarge": 1,
    "24xlarge": 4,
    "48xlarge": 8,
}

# Source: Amazon EC2's instance type pages, accelerated computing.
INSTANCE_TYPES: dict[str, InstanceType] = {
    **_family("p4d", "A100-40GB", {"24xlarge": 8}),
    **_family("p4de", "A100-80GB", {"24xlarge": 8}),
    **_family("p5", "H100", {"4xlarge": 1, "48xlarge": 8}),
    **_family("p5e", "H200", {"48xlarge": 8}),
    **_family("p5en", "H200", {"48xlarge": 8}),
    **_family("g5", "A10G", _G_SIZES),
    **_family("g6", "L4", _G_SIZES),
    **_family("g6e", "L40S", _G_SIZES),
}

# Sources: each model's card and config.json. DeepSeek-V2-Lite caches one compressed vector of 512 + 64 a layer.
MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model("meta-llama/Llama-3.1-8B-Instruct", 8.03e9, 8.03e9, 2 * 32 * 8 * 128, 32),
        Model("meta-llama/Llama-3.1-70B-Instruct", 70.6e9, 70.6e9, 2 * 80 * 8 * 128, 80),
        Model("mistralai/Mistral-7B-Instruct-v0.3", 7.25e9, 7.25e9, 2 * 32 * 8 * 128, 32),
        Model("mistralai/Mixtral-8x7B-Instruct-v0.1", 46.7e9, 12.9e9, 2 * 32 * 8 * 128, 32),
        Model("Qwen/Qwen2.5-32B-Instruct", 32.8e9, 32.8e9, 2 * 64 * 8 * 128, 64),
        Model("deepseek-ai/DeepSeek-V2-Lite", 15.7e9, 2.4e9, 27 * (512 + 64), 27),
    )
}

_BYTES_PER_WEIGHT = {"fp8": 1.0, "int8": 1.0, "awq": 0.5, "gptq": 0.5, "int4": 0.5}


def bytes_per_weight(quantization: str | None) -> float:
    """Bytes a weight takes in memory under vLLM's `--quantization` value (None: BF16)."""
    if quantization is None:
        return 2.0
    try:
        return _BYTES_PER_WEIGHT[quantization]
    except KeyError:
        raise ValueError(
            f"unknown quantization {quantization!r}; known: null, {', '.join(_BYTES_PER_WEIGHT)}"
        ) from None


def bytes_per_kv_element(kv_cache_dtype: str) -> float:
    """Bytes an element of the KV cache takes under vLLM's `--kv-cache-dtype` value."""
    return 1.0 if kv_cache_dtype.startswith("fp8") else 2.0
