"""A customer's runtime as the rest of the orchestrator uses it."""

from typing import Any, Protocol

from optiinfra.api.common import Wire
from optiinfra.api.customers import Infrastructure
from optiinfra.api.runtimes import CommandKind, Discover
from optiinfra.orchestrator.inventory import service as inventory
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.runtimes.commands import execute_command


class Runtime(Protocol):
    """Executes commands on the customer's side. Every method raises CommandError."""

    async def execute(self, key: str, kind: CommandKind, payload: Wire) -> dict[str, Any]:
        """Have a command executed once under its idempotency key; its output."""

    async def discover(self, key: str) -> Infrastructure:
        """The estate with every deployment as its gateway describes it now; instances as last listed."""


class CustomerRuntime:
    """The runtime that is connected for a customer."""

    def __init__(self, platform: Platform, customer_id: str) -> None:
        self._platform, self._customer_id = platform, customer_id

    async def execute(self, key: str, kind: CommandKind, payload: Wire) -> dict[str, Any]:
        """Have a command executed once under its idempotency key; its output."""
        return await execute_command(self._platform, self._customer_id, key, kind, payload)

    async def discover(self, key: str) -> Infrastructure:
        """The estate with every deployment as its gateway describes it now; instances as last listed."""
        await self.execute(key, "discover", Discover())
        return await inventory.describe(self._platform.database, self._customer_id)
