"""The owner's settings of users: invite them, withdraw invitations, remove users."""

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from optiinfra.api import calls
from optiinfra.api.users import Invite, Invited
from optiinfra.kit.problems import Problem
from optiinfra.portal import join
from optiinfra.portal.dependencies import CurrentAccess, CurrentPlatform, FormField
from optiinfra.portal.forms import FormId, entered, new_form_id, refusal
from optiinfra.portal.platform import Platform
from optiinfra.portal.sessions import Access
from optiinfra.portal.views import page

router = APIRouter()

_PATH = "/settings/users"


@router.get(_PATH)
async def users_page(platform: CurrentPlatform, access: CurrentAccess) -> Response:
    """The users and those who are invited."""
    return await _page(platform, access)


@router.post(_PATH)
async def invite(
    request: Request,
    platform: CurrentPlatform,
    access: CurrentAccess,
    email: FormField = "",
    role: FormField = "",
    form_id: FormId = "",
) -> Response:
    """Invite somebody; the response shows the link, once."""
    try:
        with entered():
            body = Invite.model_validate({"email": email.strip(), "role": role})
        call = calls.invite(access.identity.customer_id, body)
        invited = await platform.send(call, access.token, key=form_id)
    except Problem as problem:
        return await _page(platform, access, problem=problem, email=email, role=role)
    return await _page(platform, access, invited=invited, link=join.link(request, invited.invitation_token))


@router.post(_PATH + "/{user_id}/remove")
async def remove(user_id: str, platform: CurrentPlatform, access: CurrentAccess) -> Response:
    """Remove a user, or withdraw an invitation."""
    try:
        await platform.send(calls.remove_user(access.identity.customer_id, user_id), access.token)
    except Problem as problem:
        return await _page(platform, access, problem=problem)
    return RedirectResponse(_PATH, 303)


async def _page(
    platform: Platform,
    access: Access,
    *,
    problem: Problem | None = None,
    invited: Invited | None = None,
    link: str = "",
    email: str = "",
    role: str = "viewer",
) -> Response:
    error = refusal(problem)
    users = await platform.send(calls.users(access.identity.customer_id), access.token)
    return page(
        "settings_users.html",
        problem.status if problem else 200,
        identity=access.identity,
        tab=_PATH,
        error=error,
        users=users,
        invited=invited,
        link=link,
        email=email,
        role=role,
        form_id=new_form_id(),
    )
