"""Questions that agents ask of the inventory."""

from collections.abc import Collection

from optiinfra.api.customers import Deployment, Infrastructure, Instance


def running_instances(infrastructure: Infrastructure, deployment: Deployment) -> list[Instance]:
    """The running instances that host an engine of the deployment which is not dead."""
    alive = {engine.instance_id for engine in deployment.engines if engine.state != "dead"}
    return [
        instance
        for instance in infrastructure.instances_of(deployment)
        if instance.state == "running" and instance.instance_id in alive
    ]


def why_not_idle(infrastructure: Infrastructure, instance_ids: Collection[str]) -> str | None:
    """Why these instances are not all running without an engine; None when they are. A dead engine does not count."""
    for deployment in infrastructure.vllm_deployments:
        for engine in deployment.engines:
            if engine.instance_id in instance_ids and engine.state != "dead":
                return f"{engine.instance_id} hosts replica {engine.replica_id} of {deployment.name} ({engine.state})"
    states = {instance.instance_id: instance.state for instance in infrastructure.instances}
    for instance_id in instance_ids:
        if (state := states.get(instance_id, "missing from the inventory")) != "running":
            return f"{instance_id} is {state}, not running"
    return None
