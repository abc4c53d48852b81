"""One customer's connection, from connecting to being refused or taken away."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from optiinfra.runtime.collect import SHORTEST_WINDOW_SECONDS, Collector
from optiinfra.runtime.commands import Commander
from optiinfra.runtime.enrolment import Enrolment
from optiinfra.runtime.gateway import Gateway, GatewayError
from optiinfra.runtime.inventory import Inventory
from optiinfra.runtime.outbox import Outbox
from optiinfra.runtime.platform import LONGEST_PAUSE, Platform, TokenRefusedError
from optiinfra.runtime.settings import RuntimeSettings

log = structlog.get_logger(__name__)

INVENTORY_SECONDS = 5.0


async def serve(enrolment: Enrolment, settings: RuntimeSettings) -> None:
    """Serve a customer until its token is refused; whatever else goes wrong is logged and begun anew."""
    with structlog.contextvars.bound_contextvars(customer_id=enrolment.customer_id):
        refused = False
        while not refused:
            try:
                await _connection(enrolment, settings)
            except* TokenRefusedError as errors:
                refused = True
                log.warning("token refused: this customer is served no longer", error=_first(errors))
            except* Exception:
                log.exception("connection failed; connecting anew")
            if not refused:
                await asyncio.sleep(LONGEST_PAUSE)


async def _connection(enrolment: Enrolment, settings: RuntimeSettings) -> None:
    platform = Platform(settings.orchestrator_url, enrolment.customer_id, enrolment.agent_token, settings.version)
    gateway = Gateway(enrolment.gateway_url, enrolment.customer_id)
    outbox, collector = Outbox(platform), Collector(gateway)
    inventory = Inventory(gateway, platform, outbox)
    commander = Commander(platform, gateway, inventory, collector, outbox, enrolment.golden_prompts)
    watch = _GatewayWatch()

    async def report_round() -> None:
        found = await collector.round(inventory.deployment_ids)
        await outbox.put(found.samples, found.latencies)

    async def scrape() -> None:
        known = collector.watched
        await report_round()
        if collector.watched - known:
            # Rates need two looks: a new deployment's come as soon as they can.
            await asyncio.sleep(SHORTEST_WINDOW_SECONDS)
            await report_round()

    try:
        log.info("connected", runtime_id=await platform.connect())
        async with asyncio.TaskGroup() as group:
            group.create_task(outbox.run())
            group.create_task(commander.run())
            await watch.attempt(inventory.refresh)
            group.create_task(watch.every(INVENTORY_SECONDS, inventory.refresh))
            group.create_task(watch.every(settings.scrape_seconds, scrape))
    finally:
        await asyncio.gather(platform.close(), gateway.close())


def _first(errors: BaseExceptionGroup[Exception]) -> str:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


class _GatewayWatch:
    """Repeats what needs the gateway, and logs once when it goes away and once when it is back."""

    def __init__(self) -> None:
        self._away = False

    async def attempt(self, action: Callable[[], Awaitable[None]]) -> None:
        try:
            await action()
        except GatewayError as error:
            if not self._away:
                log.warning("gateway away", error=str(error))
            self._away = True
        else:
            if self._away:
                log.info("gateway back")
            self._away = False

    async def every(self, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        due = time.monotonic()
        while True:
            await self.attempt(action)
            due = max(due + seconds, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
