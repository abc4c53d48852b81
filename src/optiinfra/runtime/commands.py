"""Commands of the platform: received, executed on gateway and engines, and acknowledged with their results."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog
from cachetools import LRUCache
from pydantic import ValidationError

from optiinfra.api.common import now
from optiinfra.api.runtimes import (
    LONGEST_ERROR,
    Command,
    CommandKind,
    CommandResult,
    DeployReplica,
    GoldenPrompts,
    Measure,
    MeasureOutput,
    RestartReplica,
    RetireReplica,
    SetWeights,
)
from optiinfra.kit.retries import DeadlineError
from optiinfra.runtime import golden
from optiinfra.runtime.collect import Collector
from optiinfra.runtime.gateway import Gateway, GatewayError
from optiinfra.runtime.golden import GoldenPrompt
from optiinfra.runtime.inventory import Inventory
from optiinfra.runtime.outbox import Outbox
from optiinfra.runtime.platform import Platform, RejectedError, TokenRefusedError
from optiinfra.runtime.replicas import POLL_SECONDS, CommandError, Replicas

log = structlog.get_logger(__name__)

RESULT_CACHE_SIZE = 256
FLUSH_SECONDS = 60.0
"""How long the platform may take to accept the telemetry that a measurement refers to."""


class CommandExecutor:
    """Executes one customer's commands, concurrently, each idempotency key at most once at a time.

    A command that succeeded is not executed again; its result is remembered.
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
        self._replicas = Replicas(gateway, self._scrape)
        self._handlers: dict[CommandKind, Callable[[Command], Awaitable[dict[str, Any]]]] = {
            "discover": self._discover,
            "deploy_replica": self._deploy_replica,
            "set_weights": self._set_weights,
            "restart_replica": self._restart_replica,
            "retire_replica": self._retire_replica,
            "golden_prompts": self._ask_golden_prompts,
            "measure": self._measure,
        }
        self._loaded_prompts: list[GoldenPrompt] | None = None
        self._succeeded: LRUCache[str, CommandResult] = LRUCache(RESULT_CACHE_SIZE)
        self._running: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Receive and execute commands until cancelled or the token is refused."""
        async with asyncio.TaskGroup() as group:
            while True:
                pending = {item.idempotency_key: item for item in await self._platform.commands()}
                new = [command for key, command in pending.items() if key not in self._running]
                for command in new:
                    self._running[command.idempotency_key] = group.create_task(self._execute_and_acknowledge(command))
                if not new and self._running:
                    # All pending commands are running already: the platform would answer the next call at once.
                    await asyncio.wait(
                        self._running.values(), timeout=2 * POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED
                    )

    async def _execute_and_acknowledge(self, command: Command) -> None:
        try:
            result = await self.execute(command)
            try:
                await self._platform.acknowledge(command, result)
            except RejectedError as error:
                log.warning("command result rejected", command_id=command.command_id, error=str(error))
        finally:
            del self._running[command.idempotency_key]

    async def execute(self, command: Command) -> CommandResult:
        """The result of a command, which includes failures; raises only TokenRefusedError."""
        key = command.idempotency_key
        if (remembered := self._succeeded.get(key)) is not None:
            return remembered
        try:
            result = CommandResult(ok=True, output=await self._handlers[command.kind](command))
        except CommandError as error:
            result = CommandResult(ok=False, output=error.output, error=str(error)[:LONGEST_ERROR])
        except (GatewayError, DeadlineError, golden.GoldenPromptError, RejectedError, ValidationError) as error:
            result = CommandResult(ok=False, error=f"{command.kind}: {error}"[:LONGEST_ERROR])
        except TokenRefusedError:
            raise
        except Exception as error:
            # Without a result the command would be delivered again and end the connection each time.
            log.exception("command failed unexpectedly", kind=command.kind, command_id=command.command_id)
            text = f"{command.kind}: {type(error).__name__}: {error}"[:LONGEST_ERROR]
            result = CommandResult(ok=False, error=text)
        if result.ok:
            self._succeeded[key] = result
        log.info("command executed", kind=command.kind, command_id=command.command_id, ok=result.ok, error=result.error)
        return result

    async def _discover(self, _command: Command) -> dict[str, Any]:
        await self._inventory.refresh(always=True)
        return {}

    async def _deploy_replica(self, command: Command) -> dict[str, Any]:
        replica_id = await self._replicas.deploy(DeployReplica.model_validate(command.payload), command.idempotency_key)
        await self._inventory.refresh()
        return {"replica_id": replica_id}

    async def _set_weights(self, command: Command) -> dict[str, Any]:
        await self._replicas.set_weights(SetWeights.model_validate(command.payload), command.idempotency_key)
        await self._inventory.refresh()
        return {}

    async def _restart_replica(self, command: Command) -> dict[str, Any]:
        await self._replicas.restart(RestartReplica.model_validate(command.payload), command.idempotency_key)
        await self._inventory.refresh()
        return {}

    async def _retire_replica(self, command: Command) -> dict[str, Any]:
        await self._replicas.retire(RetireReplica.model_validate(command.payload), command.idempotency_key)
        await self._inventory.refresh()
        return {}

    async def _ask_golden_prompts(self, command: Command) -> dict[str, Any]:
        wanted = GoldenPrompts.model_validate(command.payload)
        prompts = await self._prompts()
        model = (await self._gateway.deployment(wanted.deployment)).model

        async def complete(replica_id: str, messages: Any, seed: int) -> str:
            return await self._gateway.complete(replica_id, model, messages, seed)

        with self._collector.excluding_own_requests(wanted.deployment):
            answers = await golden.ask(complete, wanted.replica_ids, golden.pick(prompts, wanted.offset, wanted.count))
        return {"answers": [answer.model_dump() for answer in answers]}

    async def _prompts(self) -> list[GoldenPrompt]:
        if self._loaded_prompts is None:
            self._loaded_prompts = await asyncio.to_thread(golden.load, self._golden_prompts)
        return self._loaded_prompts

    async def _measure(self, command: Command) -> dict[str, Any]:
        wanted = Measure.model_validate(command.payload)
        await self._scrape()
        measured_at = now()
        await self._outbox.flush(FLUSH_SECONDS)
        deployment = await self._gateway.deployment(wanted.deployment)
        return MeasureOutput(
            measured_at=measured_at,
            requests_served=deployment.requests_served,
            requests_dropped=deployment.requests_dropped,
        ).model_dump(mode="json")

    async def _scrape(self) -> None:
        scraped = await self._collector.scrape(self._inventory.deployment_ids)
        await self._outbox.put(scraped.samples, scraped.latencies)
