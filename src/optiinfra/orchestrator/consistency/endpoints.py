"""The route of the consistency check."""

from fastapi import APIRouter

from optiinfra.api.consistency import Consistency
from optiinfra.kit.auth import CurrentPrincipal
from optiinfra.orchestrator.access import require_kind
from optiinfra.orchestrator.consistency.service import check
from optiinfra.orchestrator.platform import CurrentPlatform

router = APIRouter(prefix="/admin")

LONG_CALLS = ("GET /admin/consistency",)


@router.get("/consistency")
async def consistency(principal: CurrentPrincipal, platform: CurrentPlatform) -> Consistency:
    """Every dangling reference between stores and clouds."""
    require_kind(principal, "admin")
    return await check(platform)
