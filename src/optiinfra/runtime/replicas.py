"""Commands that change a deployment at the gateway: weights, and replicas deployed, restarted and retired."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from optiinfra.api.runtimes import DeployReplica, RestartReplica, RetireReplica, SetWeights
from optiinfra.kit.retries import DeadlineError, retry_until_deadline
from optiinfra.runtime.gateway import Gateway, GatewayError, GatewayRefusedError, GatewayReplica

READY_SECONDS = 900.0
"""Simulated seconds that an engine may take to load its model."""
DRAIN_SECONDS = 600.0
"""Simulated seconds that requests may take to finish once a replica gets no new ones."""
LEAST_SECONDS = 20.0
"""Real seconds that every deadline has at least, however fast time is simulated."""
POLL_SECONDS = 0.05


class CommandError(Exception):
    """The command failed; the text says why, `output` what was created anyway."""

    def __init__(self, text: str, output: dict[str, Any] | None = None) -> None:
        super().__init__(text)
        self.output = output or {}


class Replicas:
    """Changes one customer's deployments.

    Changes of one deployment are applied in the order of the commands, but no command waits for another's engines to
    load or drain: several can load and drain at once, and traffic can be shifted back meanwhile. `scrape` is called
    before engines lose their counters or traffic, so that every request is measured under the state it was served in.
    """

    def __init__(self, gateway: Gateway, scrape: Callable[[], Awaitable[None]]) -> None:
        self._gateway, self._scrape = gateway, scrape
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def set_weights(self, wanted: SetWeights, key: str) -> None:
        """Set the weights of a deployment's replicas."""
        async with self._locks[wanted.deployment]:
            await self._scrape()
            await self._gateway.set_weights(wanted.deployment, wanted.weights, key)

    async def deploy(self, wanted: DeployReplica, key: str) -> str:
        """Start a replica, wait until it is ready and return its id.

        CommandError has the id if it is not ready before the deadline.
        """
        async with self._locks[wanted.deployment]:
            speed = (await self._gateway.deployment(wanted.deployment)).speed
            replica_id = await self._gateway.add_replica(wanted.deployment, wanted.instance_id, wanted.engine_args, key)

        async def ready() -> None:
            await self._check_health(replica_id)

        what = f"replica {replica_id} on {wanted.instance_id}"
        try:
            await retry_until_deadline(ready, what, _real_seconds(READY_SECONDS, speed), interval=POLL_SECONDS)
        except DeadlineError as error:
            raise CommandError(str(error), {"replica_id": replica_id}) from error
        return replica_id

    async def retire(self, wanted: RetireReplica, key: str) -> None:
        """Drain and remove a replica. One that is gone already is no error, one with weight is a CommandError."""

        async def remove(replica: GatewayReplica | None) -> None:
            if replica is not None:
                await self._gateway.remove_replica(wanted.deployment, wanted.replica_id, key)

        await self._when_drained(wanted.deployment, wanted.replica_id, remove)

    async def restart(self, wanted: RestartReplica, key: str) -> None:
        """Drain a replica, restart it with other engine arguments, and wait until it is ready with them.

        One that has them already is not restarted. CommandError if it has weight, is unknown, or not ready in time.
        """
        deployment, replica_id = wanted.deployment, wanted.replica_id
        unknown = f"{deployment} has no replica {replica_id}"

        async def restart(replica: GatewayReplica | None) -> None:
            if replica is None:
                raise CommandError(unknown)
            await self._gateway.set_engine_args(replica_id, wanted.engine_args, key)

        found = await self._gateway.deployment(deployment)
        replica = found.replica(replica_id)
        if replica is None or replica.engine_args != wanted.engine_args:
            await self._when_drained(deployment, replica_id, restart)

        async def ready() -> None:
            replica = (await self._gateway.deployment(deployment)).replica(replica_id)
            if replica is None:
                raise GatewayError(unknown)
            # The gateway may show more arguments than were given, those with defaults.
            shown = replica.engine_args or {}
            if replica.state != "ready" or not wanted.engine_args.items() <= shown.items():
                raise GatewayError(f"{replica.state} with {shown}")
            await self._check_health(replica_id)

        deadline = _real_seconds(READY_SECONDS, found.speed)
        await retry_until_deadline(ready, f"restarted replica {replica_id}", deadline, interval=POLL_SECONDS)

    async def _when_drained(
        self, deployment: str, replica_id: str, action: Callable[[GatewayReplica | None], Awaitable[None]]
    ) -> None:
        """Call `action` once no request runs in the replica; None stands for a replica that is gone."""
        speed = (await self._gateway.deployment(deployment)).speed

        async def attempt() -> str | None:
            """None once the action is done, else why it is refused. Weights may change between two attempts."""
            async with self._locks[deployment]:
                replica = (await self._gateway.deployment(deployment)).replica(replica_id)
                if replica is not None:
                    if replica.weight > 0:
                        return f"replica {replica_id} of {deployment} has weight {replica.weight:g}; set it to 0 first"
                    if replica.requests_running > 0:
                        raise GatewayError(f"{replica.requests_running:g} requests are running")
                    await self._scrape()
                try:
                    await action(replica)
                except (CommandError, GatewayRefusedError) as error:
                    return str(error)
                return None

        deadline = _real_seconds(DRAIN_SECONDS, speed)
        if refusal := await retry_until_deadline(
            attempt, f"draining replica {replica_id}", deadline, interval=POLL_SECONDS
        ):
            raise CommandError(refusal)

    async def _check_health(self, replica_id: str) -> None:
        if (status := await self._gateway.health(replica_id)) != 200:
            raise GatewayError(f"its health check answered {status}")


def _real_seconds(simulated: float, speed: float) -> float:
    return max(LEAST_SECONDS, simulated / speed)
