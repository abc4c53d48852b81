"""Customers, their preferences, and what they own in clouds and fleets."""

from typing import Any, Literal

from pydantic import Field

from optiinfra.api.common import Body, FreeJson, Moment, Text, Wire
from optiinfra.domain.inventory import InventoryStatus
from optiinfra.domain.recommendation import InstanceState, Lifecycle, RiskLevel

Provider = Literal["aws", "gcp"]


class Preferences(Body):
    """What a customer wants optimized and how far we may go; `auto_approve_below` in dollars a month."""

    priority: Literal["cost", "performance", "quality", "balanced"] = "balanced"
    max_risk: RiskLevel = "medium"
    spot_allowed: bool = True
    providers: list[Provider] = Field(default_factory=lambda: list[Provider](("aws",)))
    auto_approve_below: float = Field(default=0.0, ge=0.0, le=1e9)


class Customer(Wire):
    """One customer."""

    id: str
    company_name: str
    plan: str
    preferences: Preferences
    created_at: Moment


class Onboard(Body):
    """A cloud account that the platform may read and change through a role."""

    cloud_provider: Literal["aws"]
    region: str = Field(max_length=40, pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")
    iam_role_arn: str = Field(max_length=600, pattern=r"^arn:aws:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+$")
    external_id: Text | None = None

    @property
    def account_id(self) -> str:
        """The number of the AWS account that the role belongs to."""
        return self.iam_role_arn.split(":")[4]


class Started(Wire):
    """Answer to what goes on in the background."""

    status: Literal["started"] = "started"


class InstallCommand(Wire):
    """How to start the runtime on the customer's side. The token is shown this once."""

    install_command: str
    agent_token: str
    token_id: str


class Instance(Wire):
    """One cloud instance. `monthly_cost` is 0 unless it runs.

    `idle_since` is when it was first seen to run and serve no deployment; None while it serves one or does not run.
    """

    instance_id: str
    provider: str
    region: str
    instance_type: str
    lifecycle: Lifecycle
    gpu_type: str | None
    gpu_count: int
    monthly_cost: float
    state: InstanceState
    account_id: str | None = None
    idle_since: Moment | None = None


class Slo(Wire):
    """A deployment's objectives: 95th percentile in milliseconds, share of golden prompts answered right."""

    p95_latency_ms: float
    quality: float


class Replica(Wire):
    """One engine behind a gateway, and the instance it runs on. `engine_args` are None where a gateway tells none."""

    replica_id: str
    instance_id: str
    instance_type: str
    state: Literal["starting", "ready", "draining", "dead"]
    engine_args: FreeJson | None = None


class DiscoveredDeployment(Wire):
    """A deployment as its gateway describes it."""

    name: Text
    model: str
    provider: str
    region: str
    engine_args: FreeJson
    weights: dict[str, float]
    slo: Slo
    interruptible: bool
    replicas: list[Replica]


class Deployment(Wire):
    """A deployment as the platform shows it; `replicas` counts those that carry traffic."""

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
    """All that is known of a customer's estate."""

    status: InventoryStatus
    error: str | None = None
    instances: list[Instance]
    vllm_deployments: list[Deployment]

    def deployment(self, deployment_id: str | None) -> Deployment:
        """The deployment of that id; KeyError names it when there is none."""
        for deployment in self.vllm_deployments:
            if deployment.deployment_id == deployment_id:
                return deployment
        raise KeyError(deployment_id)

    def instances_of(self, deployment: Deployment) -> list[Instance]:
        """The instances that the deployment's engines run on."""
        wanted = {engine.instance_id for engine in deployment.engines}
        return [instance for instance in self.instances if instance.instance_id in wanted]
