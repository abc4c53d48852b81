"""Every user's own settings: password and sessions."""

from fastapi import APIRouter
from starlette.responses import RedirectResponse, Response

from optiinfra.api import calls
from optiinfra.api.accounts import PasswordChange
from optiinfra.kit.problems import Problem
from optiinfra.portal.dependencies import CurrentAccess, CurrentPlatform, FormField
from optiinfra.portal.forms import entered, new_password, refusal
from optiinfra.portal.platform import Platform
from optiinfra.portal.sessions import Access
from optiinfra.portal.views import page

router = APIRouter()

_PATH = "/settings/account"


@router.get(_PATH)
async def account_page(platform: CurrentPlatform, access: CurrentAccess) -> Response:
    """Who is signed in, and where else."""
    return await _page(platform, access)


@router.post(_PATH + "/password")
async def change_password(
    platform: CurrentPlatform,
    access: CurrentAccess,
    current: FormField = "",
    password: FormField = "",
    repeated: FormField = "",
) -> Response:
    """Change the password, which ends the user's other sessions."""
    try:
        with entered():
            body = PasswordChange(current_password=current, new_password=new_password(password, repeated))
        await platform.send(calls.change_password(body), access.token)
    except Problem as problem:
        if problem.kind == "wrong_credentials":
            problem = Problem(422, problem.kind, "The current password is wrong.")
        return await _page(platform, access, problem=problem)
    return await _page(platform, access, changed=True)


@router.post(_PATH + "/sessions/{session_id}/end")
async def end_session(session_id: str, platform: CurrentPlatform, access: CurrentAccess) -> Response:
    """End one of the user's sessions."""
    try:
        await platform.send(calls.end_session(session_id), access.token)
    except Problem as problem:
        return await _page(platform, access, problem=problem)
    return RedirectResponse(_PATH, 303)


async def _page(
    platform: Platform, access: Access, *, problem: Problem | None = None, changed: bool = False
) -> Response:
    error = refusal(problem)
    sessions = await platform.send(calls.sessions(), access.token)
    return page(
        "settings_account.html",
        problem.status if problem else 200,
        identity=access.identity,
        tab=_PATH,
        error=error,
        sessions=sessions,
        changed=changed,
    )
