"""The route of a customer's infrastructure."""

from fastapi import APIRouter

from optiinfra.api.customers import Infrastructure
from optiinfra.kit.auth import CurrentPrincipal
from optiinfra.orchestrator.access import require_tenant
from optiinfra.orchestrator.inventory import service
from optiinfra.orchestrator.platform import CurrentPlatform

router = APIRouter()


@router.get("/customers/{customer_id}/infrastructure")
async def infrastructure(customer_id: str, principal: CurrentPrincipal, platform: CurrentPlatform) -> Infrastructure:
    """The infrastructure from the latest inventory."""
    require_tenant(principal, customer_id)
    return await service.describe(platform.database, customer_id)
