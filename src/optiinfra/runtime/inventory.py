"""The deployments behind the customer's gateway, as reported to the platform."""

import asyncio
import math

from optiinfra.api.runtimes import InventoryReport
from optiinfra.api.telemetry import Sample
from optiinfra.runtime.gateway import Gateway
from optiinfra.runtime.outbox import Outbox
from optiinfra.runtime.platform import Platform


class Inventory:
    """Reports the inventory when it changes, and the gateway's history of deployments that are new to the platform."""

    def __init__(self, gateway: Gateway, platform: Platform, outbox: Outbox) -> None:
        self._gateway, self._platform, self._outbox = gateway, platform, outbox
        self.deployment_ids: dict[str, str] = {}
        self._reported: InventoryReport | None = None
        self._history_wanted: set[str] = set()
        self._history_sent: set[str] = set()
        self._lock = asyncio.Lock()

    async def refresh(self, *, always: bool = False) -> None:
        """Read the inventory and report it if it changed (or `always`); GatewayError if the gateway does not answer."""
        async with self._lock:
            found = await self._gateway.deployments()
            report = InventoryReport(deployments=[deployment.discovered() for deployment in found])
            if always or report != self._reported:
                accepted = await self._platform.report(report)
                self.deployment_ids, self._history_wanted = accepted.deployment_ids, set(accepted.history_wanted)
                self._reported = report
            if new := self._history_wanted - self._history_sent:
                await self._send_history(new)

    async def _send_history(self, names: set[str]) -> None:
        samples = [
            Sample(
                deployment_id=self.deployment_ids[point.deployment],
                metric=metric,
                timestamp=point.timestamp,
                value=value,
            )
            for point in await self._gateway.history()
            if point.deployment in names
            for metric, value in (
                ("throughput", point.throughput),
                ("p95_latency_ms", point.p95_latency_ms),
                ("gpu_utilization", point.gpu_utilization),
            )
            if math.isfinite(value)
        ]
        await self._outbox.put(samples)
        self._history_sent |= names
