"""The channel between the platform and the runtime on the customer's side; the runtime always calls outward."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from optiinfra.api.common import Body, FreeJson, Identifier, Moment, Prose, Secret, Text, Wire, storable
from optiinfra.api.customers import DiscoveredDeployment

MOST_DEPLOYMENTS = 5_000
"""Deployments of one customer, those that are gone included."""
MOST_UNKNOWN_INSTANCES = 1_000
LONGEST_ERROR = 10_000

CommandKind = Literal[
    "discover", "deploy_replica", "set_weights", "restart_replica", "retire_replica", "golden_prompts", "measure"
]


class Connect(Body):
    """A runtime's first call, with its customer's token."""

    customer_id: Identifier
    agent_token: Secret
    hostname: Text
    version: Text


class Connected(Wire):
    """Answer to `Connect`. Later calls carry the token as bearer token."""

    connected: Literal[True] = True
    runtime_id: str


class InventoryReport(Body):
    """Every deployment behind the customer's gateway."""

    deployments: list[DiscoveredDeployment] = Field(max_length=MOST_DEPLOYMENTS, fail_fast=True)


class InventoryAccepted(Wire):
    """The platform's id of each deployment by name; telemetry is sent under it.

    `history_wanted` names the deployments without telemetry, whose history the runtime must send. `unknown_instances`
    are reported instances that the last listings of the customer's cloud accounts do not have, the first of them:
    they are ignored until a listing has them.
    """

    deployment_ids: dict[str, str]
    history_wanted: list[str]
    unknown_instances: list[str] = Field(default_factory=list)


class Command(Wire):
    """One command to a runtime. Commands with the same `idempotency_key` take effect once."""

    command_id: str
    idempotency_key: str
    kind: CommandKind
    payload: dict[str, Any]


class CommandResult(Body):
    """The result of a command: `output` depends on its kind, `error` says why it failed."""

    ok: bool
    output: FreeJson = Field(default_factory=dict)
    error: Annotated[str | None, Field(max_length=LONGEST_ERROR), AfterValidator(storable)] = None


class Discover(Wire):
    """Report the inventory again before acknowledging. Output: `{}`."""


class DeployReplica(Wire):
    """Start an engine on an instance with weight 0, and wait until it is ready. Output: `{replica_id}`."""

    deployment: str
    instance_id: str
    engine_args: dict[str, Any] | None = None


class SetWeights(Wire):
    """Set the weights of a deployment's replicas; they sum to 1. Output: `{}`."""

    deployment: str
    weights: dict[str, float]


class RestartReplica(Wire):
    """Restart an engine with other arguments once it is drained, and wait until it is ready; its weight must be 0.

    An engine that has the arguments already is not restarted. Output: `{}`.
    """

    deployment: str
    replica_id: str
    engine_args: dict[str, Any]


class RetireReplica(Wire):
    """Remove an engine once it is drained; its weight must be 0. Output: `{}`, also if it does not exist."""

    deployment: str
    replica_id: str


class GoldenPrompts(Wire):
    """Send `count` golden prompts from the `offset`-th on to the replicas round-robin.

    After the last prompt the first follows, with another sampling seed. Output: `{answers: [GoldenAnswer]}`.
    """

    deployment: str
    replica_ids: list[str]
    offset: int
    count: int


class GoldenAnswer(Wire):
    """A replica's answer to one golden prompt."""

    prompt_id: Identifier
    turns: int = Field(ge=0, le=1_000)
    expected: Prose
    answer: Prose


class Measure(Wire):
    """Scrape a deployment and send its telemetry before acknowledging. Output: `MeasureOutput`."""

    deployment: str


class MeasureOutput(Wire):
    """The gateway's counters since the deployment was created, and the runtime's time of the scrape."""

    measured_at: Moment
    requests_served: int = Field(ge=0, le=2**62)
    requests_dropped: int = Field(ge=0, le=2**62)
