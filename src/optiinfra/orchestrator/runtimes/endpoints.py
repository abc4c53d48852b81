"""Routes for runtimes: connecting, reporting, fetching and acknowledging commands."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Query, Request, Response

from optiinfra.api.customers import Started
from optiinfra.api.runtimes import (
    MOST_UNKNOWN_INSTANCES,
    Command,
    CommandResult,
    Connect,
    Connected,
    InventoryAccepted,
    InventoryReport,
)
from optiinfra.api.telemetry import TelemetryBatch
from optiinfra.kit.app import cancel_on_shutdown
from optiinfra.kit.late_bodies import LateBodyRoute
from optiinfra.kit.openapi import error_responses
from optiinfra.kit.raw_json import RawJsonRoute, from_raw_json
from optiinfra.orchestrator.access import Runtime
from optiinfra.orchestrator.audit.middleware import Attribute
from optiinfra.orchestrator.credentials import agent_tokens
from optiinfra.orchestrator.errors import NotFound, Unauthenticated
from optiinfra.orchestrator.idempotency import REPLAYED, IdempotencyKey, Keyed, digest_of
from optiinfra.orchestrator.inventory.service import store_deployments
from optiinfra.orchestrator.limits.service import admit_samples
from optiinfra.orchestrator.platform import CurrentPlatform
from optiinfra.orchestrator.runtimes import service
from optiinfra.orchestrator.runtimes.commands import acknowledge_command, deliver_commands
from optiinfra.orchestrator.telemetry.parsing import Columns, parse_batch
from optiinfra.orchestrator.telemetry.service import BatchKey, store

router = APIRouter(prefix="/agent-runtime", route_class=LateBodyRoute)
bulk_router = APIRouter(route_class=RawJsonRoute)

PUBLIC = ("/agent-runtime/connect",)  # its credential is in the body
LONG_CALLS = ("GET /agent-runtime/[^/]+/commands",)
LARGE_BODIES = (
    "POST /agent-runtime/[^/]+/telemetry",
    "PUT /agent-runtime/[^/]+/inventory",
    "POST /agent-runtime/[^/]+/commands/[^/]+/result",
)


async def _customer(runtime_id: str, principal: Runtime, platform: CurrentPlatform) -> str:
    """The customer of the calling runtime, which must be the one of the path.

    A dependency: who calls is checked before what is sent.
    """
    await service.require_runtime(platform, principal.subject, runtime_id)
    return principal.customer_id or ""


CallingCustomer = Annotated[str, Depends(_customer)]


@bulk_router.post("/{runtime_id}/telemetry", status_code=202, responses=error_responses(429))
async def telemetry(
    request: Request,
    body: Annotated[TelemetryBatch, from_raw_json(parse_batch)],
    customer_id: CallingCustomer,
    platform: CurrentPlatform,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Started:
    """Send measurements; a batch sent again under the same key is stored once."""
    batch = cast("Columns", body)  # as parse_batch returns it; TelemetryBatch is what the API's description shows
    await admit_samples(platform, customer_id, batch.rows)
    key = None if idempotency_key is None else BatchKey(idempotency_key, digest_of(await request.body()))
    if await store(platform, customer_id, batch, key):
        response.headers.update(REPLAYED)
    return Started()


router.include_router(bulk_router)


@router.post("/connect", responses=error_responses(401))
async def connect(body: Connect, platform: CurrentPlatform, attribute: Attribute, keyed: Keyed) -> Connected:
    """Connect with a customer's token."""
    principal = await agent_tokens.authenticate(platform, body.agent_token)
    if principal is None or principal.customer_id != body.customer_id:
        raise Unauthenticated("unauthenticated", "unknown, deleted or expired agent token, or another customer's")
    attribute(principal)
    own = keyed.sent_by(principal) if keyed else None
    return await service.connect(platform, body.customer_id, principal.subject, body.hostname, body.version, own)


@router.put("/{runtime_id}/inventory")
async def inventory(
    body: InventoryReport, customer_id: CallingCustomer, platform: CurrentPlatform
) -> InventoryAccepted:
    """Report every deployment behind the customer's gateway."""
    async with platform.database.transaction() as session:
        ids, unknown_instances = await store_deployments(session, customer_id, body.deployments)
    known = await platform.telemetry.known_deployments(customer_id)
    return InventoryAccepted(
        deployment_ids=ids,
        history_wanted=[name for name, deployment in ids.items() if deployment not in known],
        unknown_instances=unknown_instances[:MOST_UNKNOWN_INSTANCES],
    )


@router.get("/{runtime_id}/commands")
async def commands(
    runtime_id: str,
    request: Request,
    customer_id: CallingCustomer,
    principal: Runtime,
    platform: CurrentPlatform,
    wait: Annotated[float, Query(ge=0, le=60)] = 20,
) -> list[Command]:
    """Fetch commands by a long poll: answered as soon as there is one, or empty after `wait` seconds.

    When the agent token ends meanwhile, the answer is 401.
    """
    delivery = deliver_commands(platform, customer_id, principal.subject, runtime_id, wait)
    return await cancel_on_shutdown(request.app, delivery, default=[])


@router.post("/{runtime_id}/commands/{command_id}/result")
async def result(
    command_id: str, body: CommandResult, customer_id: CallingCustomer, platform: CurrentPlatform, keyed: Keyed
) -> Started:
    """Acknowledge a command with its result."""
    if not await acknowledge_command(platform, customer_id, command_id, body, keyed):
        raise NotFound("command")
    return Started()
