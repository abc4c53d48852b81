"""One customer's connection to the platform and to the inference gateway."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from optiinfra.runtime.collect import SHORTEST_WINDOW_SECONDS, Collector
from optiinfra.runtime.commands import CommandExecutor
from optiinfra.runtime.enrolment import Enrolment
from optiinfra.runtime.gateway import Gateway, GatewayError
from optiinfra.runtime.inventory import Inventory
from optiinfra.runtime.outbox import Outbox
from optiinfra.runtime.platform import LONGEST_BACKOFF, Platform, TokenRefusedError
from optiinfra.runtime.settings import RuntimeSettings

log = structlog.get_logger(__name__)

INVENTORY_SECONDS = 5.0


async def serve(enrolment: Enrolment, settings: RuntimeSettings) -> None:
    """Serve a customer until its token is refused; any other error is logged and the connection made again."""
    with structlog.contextvars.bound_contextvars(customer_id=enrolment.customer_id):
        refused = False
        while not refused:
            try:
                await _connection(enrolment, settings)
            except* TokenRefusedError as errors:
                refused = True
                log.warning("runtime token rejected, connection closed", error=_first(errors))
            except* Exception:
                log.exception("platform connection failed, reconnecting")
            if not refused:
                await asyncio.sleep(LONGEST_BACKOFF)


async def _connection(enrolment: Enrolment, settings: RuntimeSettings) -> None:
    platform = Platform(settings.orchestrator_url, enrolment.customer_id, enrolment.agent_token, settings.version)
    gateway = Gateway(enrolment.gateway_url, enrolment.customer_id)
    outbox, collector = Outbox(platform), Collector(gateway)
    inventory = Inventory(gateway, platform, outbox)
    executor = CommandExecutor(platform, gateway, inventory, collector, outbox, enrolment.golden_prompts)
    gateway_tasks = _GatewayTasks()

    async def scrape_once() -> None:
        scraped = await collector.scrape(inventory.deployment_ids)
        await outbox.put(scraped.samples, scraped.latencies)

    async def scrape() -> None:
        known = collector.deployments
        await scrape_once()
        if collector.deployments - known:
            # Rates need two scrapes; a new deployment gets the second as soon as possible.
            await asyncio.sleep(SHORTEST_WINDOW_SECONDS)
            await scrape_once()

    try:
        log.info("platform connection established", runtime_id=await platform.connect())
        async with asyncio.TaskGroup() as group:
            group.create_task(outbox.run())
            group.create_task(executor.run())
            await gateway_tasks.attempt(inventory.refresh)
            group.create_task(gateway_tasks.repeat(INVENTORY_SECONDS, inventory.refresh))
            group.create_task(gateway_tasks.repeat(settings.scrape_seconds, scrape))
    finally:
        await asyncio.gather(platform.close(), gateway.close())


def _first(errors: BaseExceptionGroup[Exception]) -> str:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


class _GatewayTasks:
    """Runs what needs the gateway; logs once when the gateway becomes unavailable, and once when it is back."""

    def __init__(self) -> None:
        self._available = True

    async def attempt(self, action: Callable[[], Awaitable[None]]) -> None:
        try:
            await action()
        except GatewayError as error:
            if self._available:
                log.warning("gateway unavailable", error=str(error))
            self._available = False
        else:
            if not self._available:
                log.info("gateway available again")
            self._available = True

    async def repeat(self, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        due = time.monotonic()
        while True:
            await self.attempt(action)
            due = max(due + seconds, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
