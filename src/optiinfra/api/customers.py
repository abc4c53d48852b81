"""Customers, their preferences, cloud instances and deployments."""

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import Field, computed_field

from optiinfra.api.common import Body, FreeJson, Identifier, Moment, Text, Wire
from optiinfra.domain.inventory import InventoryStatus
from optiinfra.domain.recommendation import InstanceState, Lifecycle, RiskLevel
from optiinfra.domain.savings import total

Provider = Literal["aws", "gcp"]

MOST_REPLICAS = 1_000
"""Replicas of one deployment."""


class Preferences(Body):
    """Goals and limits of optimization.

    A low-risk recommendation whose estimated savings, in dollars per month, are below `auto_approve_below` is approved
    automatically, unless the customer has `paused` that.
    """

    priority: Literal["cost", "performance", "quality", "balanced"] = "balanced"
    max_risk: RiskLevel = "medium"
    spot_allowed: bool = True
    providers: list[Provider] = Field(default_factory=lambda: list[Provider](("aws",)), max_length=10)
    auto_approve_below: float = Field(default=0.0, ge=0.0, le=1e9)
    paused: bool = False


class Customer(Wire):
    """One customer."""

    id: str
    company_name: str
    plan: str
    preferences: Preferences
    created_at: Moment


class Onboard(Body):
    """A cloud account that the platform accesses through a role, which requires the external id of `CloudTrust`."""

    cloud_provider: Literal["aws"]
    region: str = Field(max_length=40, pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")
    iam_role_arn: str = Field(max_length=600, pattern=r"^arn:aws:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+$")

    @property
    def account_id(self) -> str:
        """The number of the AWS account that the role belongs to."""
        return self.iam_role_arn.split(":")[4]


class Started(Wire):
    """Response to a call that continues in the background."""

    status: Literal["started"] = "started"


class CloudTrust(Wire):
    """What a customer puts into the role for the platform: IAM policy documents."""

    external_id: str
    trust_policy: FreeJson
    permissions_policy: FreeJson


class Instance(Wire):
    """One cloud instance. `monthly_cost` is 0 unless it runs, and None while it runs without a known price.

    `idle_since` is when it was first seen running without a deployment; None while it serves one or does not run.
    """

    instance_id: str
    provider: str
    region: str
    instance_type: str
    lifecycle: Lifecycle
    gpu_type: str | None
    gpu_count: int
    monthly_cost: float | None
    state: InstanceState
    account_id: str | None = None
    idle_since: Moment | None = None


class Slo(Wire):
    """A deployment's objectives: 95th percentile in milliseconds, share of correct golden-prompt answers."""

    p95_latency_ms: float = Field(gt=0.0, le=1e9)
    quality: float = Field(ge=0.0, le=1.0)


class Replica(Wire):
    """One engine behind a gateway, and its instance. `engine_args` is None if the gateway does not show them."""

    replica_id: Identifier
    instance_id: Identifier
    instance_type: Identifier
    state: Literal["starting", "ready", "draining", "dead"]
    engine_args: FreeJson | None = None


Weights = Annotated[dict[Identifier, Annotated[float, Field(ge=0.0, le=1.0)]], Field(max_length=MOST_REPLICAS)]
"""Share of the traffic by replica."""


class DiscoveredDeployment(Wire):
    """A deployment as its gateway describes it."""

    name: Text
    model: Identifier
    provider: Identifier
    region: Identifier
    engine_args: FreeJson
    weights: Weights
    slo: Slo
    interruptible: bool
    replicas: list[Replica] = Field(max_length=MOST_REPLICAS, fail_fast=True)


class Deployment(Wire):
    """A deployment as the platform shows it; `replicas` counts those with weight that are not dead."""

    deployment_id: str
    name: str
    model: str
    provider: str
    region: str
    replicas: int
    engine_args: dict[str, Any]
    weights: dict[str, float]
    slo: Slo
    interruptible: bool
    engines: list[Replica]


class Infrastructure(Wire):
    """Everything known of a customer's infrastructure. Totals leave out the `unpriced_instances`."""

    status: InventoryStatus
    error: str | None = None
    instances: list[Instance]
    vllm_deployments: list[Deployment]

    @computed_field  # type: ignore[prop-decorator]  # mypy does not know decorators of properties
    @property
    def unpriced_instances(self) -> int:
        """Number of instances whose cost is unknown."""
        return sum(instance.monthly_cost is None for instance in self.instances)

    def cost_of(self, instance_ids: Collection[str]) -> float | None:
        """Dollars a month of these instances; None if the cost of one is unknown."""
        costs = [instance.monthly_cost for instance in self.instances if instance.instance_id in instance_ids]
        return None if None in costs else total(costs)

    def deployment(self, deployment_id: str | None) -> Deployment:
        """The deployment with this id; KeyError if there is none."""
        for deployment in self.vllm_deployments:
            if deployment.deployment_id == deployment_id:
                return deployment
        raise KeyError(deployment_id)

    def instances_of(self, deployment: Deployment) -> list[Instance]:
        """The instances that the deployment's engines run on."""
        wanted = {engine.instance_id for engine in deployment.engines}
        return [instance for instance in self.instances if instance.instance_id in wanted]
