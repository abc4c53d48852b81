"""Questions that agents ask of the inventory."""

from optiinfra.api.customers import Deployment, Infrastructure, Instance


def running_instances(infrastructure: Infrastructure, deployment: Deployment) -> list[Instance]:
    """The running instances that the deployment's living engines are on."""
    living = {engine.instance_id for engine in deployment.engines if engine.state != "dead"}
    return [
        instance
        for instance in infrastructure.instances_of(deployment)
        if instance.state == "running" and instance.instance_id in living
    ]
