"""Orders from the platform, carried out on gateway and engines."""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from optiinfra.api.common import now
from optiinfra.api.runtimes import (
    Command,
    CommandKind,
    CommandResult,
    DeployReplica,
    GoldenPrompts,
    Measure,
    MeasureOutput,
    RetireReplica,
    SetWeights,
)
from optiinfra.kit.retries import DeadlineError, retry_until_deadline
from optiinfra.runtime import golden
from optiinfra.runtime.collect import Collector
from optiinfra.runtime.gateway import Gateway, GatewayError
from optiinfra.runtime.golden import GoldenPrompt
from optiinfra.runtime.inventory import Inventory
from optiinfra.runtime.outbox import Outbox
from optiinfra.runtime.platform import Platform, RejectedError, TokenRefusedError

log = structlog.get_logger(__name__)

REMEMBERED = 256
READY_SECONDS = 900.0
"""Simulated seconds that an engine may take to load its model."""
DRAIN_SECONDS = 600.0
"""Simulated seconds that requests may take to end once no new ones come."""
FLUSH_SECONDS = 60.0
"""How long the platform may take to accept the telemetry that a measurement stands on."""
LEAST_SECONDS = 20.0
"""Real seconds below which no deadline falls, however fast time is simulated."""
_POLL_SECONDS = 0.05


class CommandError(Exception):
    """The order cannot be carried out; the text says why, `output` what is there all the same."""

    def __init__(self, text: str, output: dict[str, Any] | None = None) -> None:
        super().__init__(text)
        self.output = output or {}


class Commander:
    """Carries out one customer's orders, each at most once at a time and never again once it succeeded.

    Orders run beside each other, but what they change of a deployment is changed in the order they were given. Nothing
    is held up by what another waits for: engines that load and drain together, or traffic that goes back meanwhile.
    """

    def __init__(
        self,
        platform: Platform,
        gateway: Gateway,
        inventory: Inventory,
        collector: Collector,
        outbox: Outbox,
        golden_prompts: Path,
    ) -> None:
        self._platform, self._gateway, self._inventory = platform, gateway, inventory
        self._collector, self._outbox, self._golden_prompts = collector, outbox, golden_prompts
        self._kinds: dict[CommandKind, Callable[[Command], Awaitable[dict[str, Any]]]] = {
            "discover": self._discover,
            "deploy_replica": self._deploy_replica,
            "set_weights": self._set_weights,
            "retire_replica": self._retire_replica,
            "golden_prompts": self._ask_golden_prompts,
            "measure": self._measure,
        }
        self._loaded_prompts: list[GoldenPrompt] | None = None
        self._succeeded: OrderedDict[str, CommandResult] = OrderedDict()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._changing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def run(self) -> None:
        """Wait for orders and carry them out, for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                pending = {item.idempotency_key: item for item in await self._platform.commands()}
                fresh = [command for key, command in pending.items() if key not in self._running]
                for command in fresh:
                    self._running[command.idempotency_key] = group.create_task(self._obey(command))
                if not fresh and self._running:
                    # All that is pending there is at work here: asking again at once would be answered with the same.
                    await asyncio.wait(
                        self._running.values(), timeout=2 * _POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED
                    )

    async def _obey(self, command: Command) -> None:
        try:
            result = await self.carry_out(command)
            try:
                await self._platform.answer(command, result)
            except RejectedError as error:
                log.warning("answer not wanted any more", command_id=command.command_id, error=str(error))
        finally:
            del self._running[command.idempotency_key]

    async def carry_out(self, command: Command) -> CommandResult:
        """How the order ended; whatever went wrong is told in the result. Only TokenRefusedError is raised."""
        key = command.idempotency_key
        if (remembered := self._succeeded.get(key)) is not None:
            return remembered
        try:
            result = CommandResult(ok=True, output=await self._kinds[command.kind](command))
        except CommandError as error:
            result = CommandResult(ok=False, output=error.output, error=str(error))
        except (GatewayError, DeadlineError, golden.GoldenPromptError, RejectedError, ValidationError) as error:
            result = CommandResult(ok=False, error=f"{command.kind}: {error}")
        except TokenRefusedError:
            raise
        except Exception as error:
            # Unanswered, it would be delivered again and again, and end the connection each time.
            log.exception("order failed unexpectedly", kind=command.kind, command_id=command.command_id)
            result = CommandResult(ok=False, error=f"{command.kind}: {type(error).__name__}: {error}")
        if result.ok:
            self._succeeded[key] = result
            if len(self._succeeded) > REMEMBERED:
                self._succeeded.popitem(last=False)
        log.info("command", kind=command.kind, command_id=command.command_id, ok=result.ok, error=result.error)
        return result

    async def _discover(self, _command: Command) -> dict[str, Any]:
        await self._inventory.refresh(always=True)
        return {}

    async def _deploy_replica(self, command: Command) -> dict[str, Any]:
        order = DeployReplica.model_validate(command.payload)
        async with self._changing[order.deployment]:
            speed = (await self._gateway.deployment(order.deployment)).speed
            replica_id = await self._gateway.add_replica(
                order.deployment, order.instance_id, order.engine_args, command.idempotency_key
            )

        async def ready() -> None:
            if (status := await self._gateway.health(replica_id)) != 200:
                raise GatewayError(f"its health answers {status}")

        try:
            await retry_until_deadline(
                ready,
                f"replica {replica_id} on {order.instance_id}",
                _real(READY_SECONDS, speed),
                interval=_POLL_SECONDS,
            )
        except DeadlineError as error:
            raise CommandError(str(error), {"replica_id": replica_id}) from error
        await self._inventory.refresh()
        return {"replica_id": replica_id}

    async def _set_weights(self, command: Command) -> dict[str, Any]:
        order = SetWeights.model_validate(command.payload)
        async with self._changing[order.deployment]:
            # What ended under the old weights is counted before they change: a stage is judged by its own requests.
            await self._scrape()
            await self._gateway.set_weights(order.deployment, order.weights, command.idempotency_key)
        await self._inventory.refresh()
        return {}

    async def _retire_replica(self, command: Command) -> dict[str, Any]:
        order = RetireReplica.model_validate(command.payload)
        speed = (await self._gateway.deployment(order.deployment)).speed

        async def removed() -> str:
            """Empty once it is gone, else why it has to stay. Looked at anew each time: its weight may come back."""
            async with self._changing[order.deployment]:
                replica = (await self._gateway.deployment(order.deployment)).replica(order.replica_id)
                if replica is None:
                    return ""
                if replica.weight > 0:
                    named = f"replica {order.replica_id} of {order.deployment}"
                    return f"{named} has weight {replica.weight:g}; set it to 0 first"
                if replica.requests_running > 0:
                    raise GatewayError(f"{replica.requests_running:g} requests are running")
                await self._scrape()  # its last requests, before its counters go with it
                await self._gateway.remove_replica(order.deployment, order.replica_id, command.idempotency_key)
                return ""

        deadline = _real(DRAIN_SECONDS, speed)
        if refusal := await retry_until_deadline(
            removed, f"draining replica {order.replica_id}", deadline, interval=_POLL_SECONDS
        ):
            raise CommandError(refusal)
        await self._inventory.refresh()
        return {}

    async def _ask_golden_prompts(self, command: Command) -> dict[str, Any]:
        order = GoldenPrompts.model_validate(command.payload)
        prompts = await self._prompts()
        model = (await self._gateway.deployment(order.deployment)).model

        async def complete(replica_id: str, messages: Any, seed: int) -> str:
            return await self._gateway.complete(replica_id, model, messages, seed)

        with self._collector.leaving_out(order.deployment):
            answers = await golden.ask(complete, order.replica_ids, golden.pick(prompts, order.offset, order.count))
        return {"answers": [answer.model_dump() for answer in answers]}

    async def _prompts(self) -> list[GoldenPrompt]:
        if self._loaded_prompts is None:
            self._loaded_prompts = await asyncio.to_thread(golden.load, self._golden_prompts)
        return self._loaded_prompts

    async def _measure(self, command: Command) -> dict[str, Any]:
        order = Measure.model_validate(command.payload)
        await self._scrape()
        measured_at = now()
        await self._outbox.flush(FLUSH_SECONDS)
        seen = await self._gateway.deployment(order.deployment)
        return MeasureOutput(
            measured_at=measured_at, requests_served=seen.requests_served, requests_dropped=seen.requests_dropped
        ).model_dump(mode="json")

    async def _scrape(self) -> None:
        found = await self._collector.round(self._inventory.deployment_ids)
        await self._outbox.put(found.samples, found.latencies)


def _real(simulated: float, speed: float) -> float:
    return max(LEAST_SECONDS, simulated / speed)
