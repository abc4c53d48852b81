"""The page on which somebody who was invited sets a password.

The invitation's token is in the link's fragment, which browsers do not send, and in the form's body: never in a path or
a query, which are logged.
"""

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from optiinfra.api import calls
from optiinfra.api.users import AcceptInvitation
from optiinfra.kit.problems import Problem
from optiinfra.portal.dependencies import CurrentPlatform, FormField, Joined
from optiinfra.portal.forms import entered, new_password, sentence
from optiinfra.portal.views import page

router = APIRouter()


def link(request: Request, token: str) -> str:
    """The link to send to somebody who was invited."""
    return f"{request.base_url}join#{token}"


@router.get("/join")
async def join_page() -> Response:
    """The form; a script moves the token from the link into it."""
    return page("join.html", token="", error=None)


@router.post("/join")
async def join(
    request: Request,
    platform: CurrentPlatform,
    joined: Joined,
    token: FormField = "",
    password: FormField = "",
    repeated: FormField = "",
) -> Response:
    """Accept the invitation, and lead to the sign-in; or show the form again with an error."""
    token = token.strip().rpartition("#")[2]  # of a whole link that was pasted
    try:
        with entered():
            body = AcceptInvitation(token=token, password=new_password(password, repeated))
        user = await platform.send(calls.accept_invitation(body))
    except Problem as problem:
        return page("join.html", problem.status, token=token, error=sentence(problem.detail))
    response = RedirectResponse("/login", 303)
    joined.remember(response, request, user.email)
    return response
