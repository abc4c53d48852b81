"""The route of the consistency check."""

from fastapi import APIRouter

from optiinfra.api.consistency import Consistency
from optiinfra.kit.late_bodies import LateBodyRoute
from optiinfra.orchestrator.access import Admin
from optiinfra.orchestrator.consistency.service import check
from optiinfra.orchestrator.platform import CurrentPlatform

router = APIRouter(prefix="/admin", route_class=LateBodyRoute)

LONG_CALLS = ("GET /admin/consistency",)


@router.get("/consistency")
async def consistency(_admin: Admin, platform: CurrentPlatform) -> Consistency:
    """Every dangling reference between stores and clouds."""
    return await check(platform)
