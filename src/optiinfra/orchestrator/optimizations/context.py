"""What a step works with: its optimization's records, its cloud account, its customer's runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from optiinfra.api.agents import Draft, Validation
from optiinfra.api.common import Wire, now
from optiinfra.api.customers import Deployment, Infrastructure
from optiinfra.api.runtimes import CommandKind, Measure, MeasureOutput
from optiinfra.clouds.protocol import CUSTOMER_TAG, Change, Cloud
from optiinfra.domain.latency import quantile
from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.inventory import service as inventory
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.runtimes.client import Runtime

Detail = dict[str, Any]
"""A step's output, shown to the customer."""


class StepError(Exception):
    """A step cannot be done, or what it checked does not hold; the text is shown to the customer."""


class Snapshot(Wire):
    """The affected resources before anything was changed: dollars a month, milliseconds, a share 0..1.

    Each type adds what it needs to restore them. None stands for what was not measured.
    """

    cost: float
    p95_latency_ms: float | None = None
    quality: float | None = None


P = TypeVar("P", bound=Wire)
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class StepContext(Generic[P, S]):
    """An approved change of some instances and the means to make it. `cloud` is the one account that holds them,
    `account_id` our id of it.

    `step` is the step's name as shown, rollback steps included. `snapshot` is the state before the change (None
    until it is taken), `details` the output of the completed steps, by name.
    """

    platform: Platform
    optimization_id: str
    recommendation_id: str
    customer_id: str
    step: str
    draft: Draft
    validations: Sequence[Validation]
    parameters: P
    instance_ids: Sequence[str]
    account_id: str
    cloud: Cloud
    runtime: Runtime
    snapshot: S
    details: Mapping[str, Detail]

    @property
    def tags(self) -> dict[str, str]:
        """Tags that assign an instance to this customer."""
        return {CUSTOMER_TAG: self.customer_id}

    @property
    def change(self) -> Change:
        """What the optimization may stop, start and terminate."""
        return Change(self.optimization_id, frozenset(self.instance_ids))

    def key(self, purpose: str) -> str:
        """Idempotency key for this optimization and purpose; the same on every attempt."""
        return f"{self.optimization_id}:{purpose}"

    def fresh_key(self) -> str:
        """A new idempotency key for each call. A later attempt of the step cancels the command."""
        return self.key(f"{self.step}:{new_id('cmd')}")

    async def command_once(self, purpose: str, kind: CommandKind, payload: Wire) -> dict[str, Any]:
        """Have the runtime execute a command once for this optimization; raises CommandError."""
        return await self.runtime.execute(self.key(purpose), kind, payload)

    async def command(self, kind: CommandKind, payload: Wire) -> dict[str, Any]:
        """Execute a command that may be repeated, and whose output must be current; raises CommandError."""
        return await self.runtime.execute(self.fresh_key(), kind, payload)

    async def measure(self, deployment: str) -> MeasureOutput:
        """Have a deployment scraped now; its figures so far are then in the telemetry."""
        return MeasureOutput.model_validate(await self.command("measure", Measure(deployment=deployment)))

    async def recent_p95_ms(self, deployment_id: str, replica_ids: Sequence[str]) -> float | None:
        """95th percentile of these replicas' latency in the measuring window; None without requests."""
        since = now() - timedelta(seconds=self.platform.settings.measuring_window_seconds)
        counts = await self.platform.telemetry.latencies(self.customer_id, deployment_id, since, replica_ids)
        return 1000.0 * quantile(counts, 0.95) if sum(counts.values()) else None

    async def refresh_inventory(self) -> Infrastructure:
        """The estate with instances as the clouds list them now; raises CloudError when this account cannot be listed.

        Another account of the customer that cannot be listed does not matter to this change.
        """
        return await inventory.refresh(self.platform, self.customer_id, [self.account_id])

    async def discover(self) -> Infrastructure:
        """The estate with every deployment as its gateway describes it now; instances as last listed."""
        return await self.runtime.discover(self.fresh_key())

    async def deployment(self) -> Deployment:
        """The deployment that is changed, as its gateway describes it now; raises StepError if it no longer exists."""
        return deployment_in(await self.discover(), self.draft)


InitialContext = StepContext[P, None]
"""A change before its snapshot is taken."""


def deployment_in(estate: Infrastructure, draft: Draft) -> Deployment:
    """The deployment that a recommendation is about; raises StepError if it no longer exists."""
    try:
        return estate.deployment(draft.deployment_id)
    except KeyError:
        name = draft.parameters.get("deployment", draft.deployment_id)
        raise StepError(f"deployment {name} no longer exists at the customer's gateway") from None
