"""A deployment, its instances and its load, as agents get them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from optiinfra.agents.base.observed import Load
from optiinfra.api.customers import Deployment, Infrastructure, Instance, Replica, Slo

ENGINE_ARGS: dict[str, Any] = {"tensor_parallel_size": 8, "gpu_memory_utilization": 0.9, "max_num_seqs": 256}
NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
LOAD = Load(
    requests_per_second=2.0,
    busiest=2.3,
    p95_latency_ms=6300.0,
    in_engine=3.9,
    prompt_tokens=800.0,
    output_tokens=200.0,
    cache_hit_rate=0.0,
    gpu_utilization=0.9,
    kv_cache_usage=0.01,
    waiting=0.0,
)
# Twenty requests per second: within the capacity of two H100 machines, above that of one.
HEAVY_LOAD = replace(LOAD, requests_per_second=20.0, busiest=23.0, p95_latency_ms=6700.0, in_engine=41.0)


def instances(
    count: int = 2, instance_type: str = "p4de.24xlarge", lifecycle: str = "on-demand", region: str = "us-east-1"
) -> list[Instance]:
    return [
        Instance.model_validate(
            {
                "instance_id": f"i-{number}",
                "provider": "aws",
                "region": region,
                "instance_type": instance_type,
                "lifecycle": lifecycle,
                "gpu_type": "A100-80GB",
                "gpu_count": 8,
                "monthly_cost": 1.0,
                "state": "running",
            }
        )
        for number in range(count)
    ]


def deployment(owned: list[Instance], **changes: Any) -> Deployment:
    engines = [
        Replica(
            replica_id=f"r-{item.instance_id}",
            instance_id=item.instance_id,
            instance_type=item.instance_type,
            state="ready",
        )
        for item in owned
    ]
    described: dict[str, Any] = {
        "deployment_id": "dep_1",
        "name": "vllm-prod-1",
        "model": "meta-llama/Llama-3.1-70B-Instruct",
        "provider": "aws",
        "region": owned[0].region if owned else "us-east-1",
        "replicas": len(owned),
        "engine_args": ENGINE_ARGS,
        "weights": {},
        "slo": Slo(p95_latency_ms=10_000, quality=0.9),
        "interruptible": True,
        "engines": engines,
    }
    return Deployment.model_validate(described | changes)


def idle_instance(instance_id: str = "i-9", **changes: Any) -> Instance:
    """A running instance without an engine, at ten dollars an hour, first seen idle two days before `NOW`."""
    described: dict[str, Any] = {
        "instance_id": instance_id,
        "instance_type": "g5.12xlarge",
        "gpu_type": "A10G",
        "gpu_count": 4,
        "monthly_cost": 7300.0,
        "account_id": "111122223333",
        "idle_since": NOW - timedelta(days=2),
    }
    return Instance.model_validate(instances(1)[0].model_dump() | described | changes)


def infrastructure(owned: list[Instance], *deployments: Deployment) -> Infrastructure:
    return Infrastructure(status="discovered", instances=owned, vllm_deployments=list(deployments))
