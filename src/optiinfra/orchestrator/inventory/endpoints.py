"""The route of a customer's infrastructure."""

from fastapi import APIRouter

from optiinfra.api.customers import Infrastructure
from optiinfra.kit.late_bodies import LateBodyRoute
from optiinfra.orchestrator.access import OwnCustomer
from optiinfra.orchestrator.inventory import service
from optiinfra.orchestrator.platform import CurrentPlatform

router = APIRouter(route_class=LateBodyRoute)


@router.get("/customers/{customer_id}/infrastructure")
async def infrastructure(customer_id: OwnCustomer, platform: CurrentPlatform) -> Infrastructure:
    """The infrastructure from the latest inventory."""
    return await service.describe(platform.database, customer_id)
