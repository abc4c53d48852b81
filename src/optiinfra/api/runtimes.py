"""The channel between the platform and the runtime on the customer's side; the runtime always calls outward."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from optiinfra.api.common import Body, FreeJson, Moment, Secret, Text, Wire, storable
from optiinfra.api.customers import DiscoveredDeployment

CommandKind = Literal["discover", "deploy_replica", "set_weights", "retire_replica", "golden_prompts", "measure"]


class Connect(Body):
    """A runtime's first call, with its customer's token."""

    customer_id: Text
    agent_token: Secret
    hostname: Text
    version: Text


class Connected(Wire):
    """Answer to it. Later calls carry the token as bearer."""

    connected: Literal[True] = True
    runtime_id: str


class InventoryReport(Body):
    """Every deployment behind the customer's gateway."""

    deployments: list[DiscoveredDeployment]


class InventoryAccepted(Wire):
    """The platform's id of each deployment, by name; telemetry is sent under it.

    `history_wanted` names the deployments of which no telemetry is known yet.
    """

    deployment_ids: dict[str, str]
    history_wanted: list[str]


class Command(Wire):
    """One order to a runtime. The same `idempotency_key` is never carried out twice with another effect."""

    command_id: str
    idempotency_key: str
    kind: CommandKind
    payload: dict[str, Any]


class CommandResult(Body):
    """How an order ended: `output` by kind, `error` when it could not be carried out."""

    ok: bool
    output: FreeJson = Field(default_factory=dict)
    error: Annotated[str | None, AfterValidator(storable)] = None


class Discover(Wire):
    """Report the inventory anew, before answering. Output: `{}`."""


class DeployReplica(Wire):
    """Start an engine on an instance, with no traffic yet; done when it is ready. Output: `{replica_id}`."""

    deployment: str
    instance_id: str
    engine_args: dict[str, Any] | None = None


class SetWeights(Wire):
    """Spread a deployment's traffic; weights sum to 1. Output: `{}`."""

    deployment: str
    weights: dict[str, float]


class RetireReplica(Wire):
    """Take an engine out once it is drained; its weight must be 0. Output: `{}`, also when it is gone already."""

    deployment: str
    replica_id: str


class GoldenPrompts(Wire):
    """Ask `count` golden prompts from the `offset`-th on, spread over the replicas.

    The set is walked round and round; each round uses another sampling seed. Output: `{answers: [GoldenAnswer]}`.
    """

    deployment: str
    replica_ids: list[str]
    offset: int
    count: int


class GoldenAnswer(Wire):
    """What a replica answered to one golden prompt."""

    prompt_id: str
    turns: int
    expected: str
    answer: str


class Measure(Wire):
    """Scrape a deployment now and send what was seen, before answering. Output: `MeasureOutput`."""

    deployment: str


class MeasureOutput(Wire):
    """The gateway's counters since the deployment was created, at the runtime's own time of the scrape."""

    measured_at: Moment
    requests_served: int
    requests_dropped: int
