"""The owner's settings of the cloud account: the role that the platform needs."""

from fastapi import APIRouter
from starlette.responses import RedirectResponse, Response

from optiinfra.api import calls
from optiinfra.portal.dependencies import CurrentAccess, CurrentPlatform
from optiinfra.portal.views import page

router = APIRouter()


@router.get("/settings")
async def settings_page(platform: CurrentPlatform, access: CurrentAccess) -> Response:
    """The policies to paste; those who are no owners are led to the settings that they have."""
    if access.identity.role != "owner":
        return RedirectResponse("/settings/account", 303)
    trust = await platform.send(calls.cloud_trust(access.identity.customer_id), access.token)
    return page("settings_cloud.html", identity=access.identity, tab="/settings", error=None, trust=trust)
