"""The pages, and the forms on them."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from optiinfra.domain.optimization import FINAL, STEPS
from optiinfra.domain.recommendation import RecommendationStatus
from optiinfra.kit.problems import Problem, not_found
from optiinfra.portal import dashboard
from optiinfra.portal.browser import set_session_cookie
from optiinfra.portal.dashboard import refused
from optiinfra.portal.platform import Platform
from optiinfra.portal.sessions import COOKIE, Access, Sessions
from optiinfra.portal.views import render

router = APIRouter()

_OBJECTED_SHOWN = 5
"""How many of the recommendations that a validator refused are explained, newest first."""


def _platform(request: Request) -> Platform:
    platform: Platform = request.app.state.platform
    return platform


def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


def _access(request: Request) -> Access:
    access: Access = request.state.access
    return access


CurrentPlatform = Annotated[Platform, Depends(_platform)]
CurrentSessions = Annotated[Sessions, Depends(_sessions)]
CurrentAccess = Annotated[Access, Depends(_access)]
Typed = Annotated[str, Form()]


def _page(name: str, status: int = 200, **values: Any) -> HTMLResponse:
    return HTMLResponse(render(name, **values), status)


@router.get("/login")
async def login_page(request: Request, sessions: CurrentSessions, next: str = "/") -> Response:  # noqa: A002
    """The form; who is signed in already is sent on."""
    if sessions.opened(request.cookies.get(COOKIE)):
        return RedirectResponse(_own_page(next), 303)
    return _page("login.html", next=next, email="", error=None)


@router.post("/login")
async def login(
    request: Request,
    sessions: CurrentSessions,
    email: Typed = "",
    password: Typed = "",
    next: Typed = "/",  # noqa: A002
) -> Response:
    """Sign in, or show the form again with the reason why not."""
    again = {"next": next, "email": email}
    if not email.strip() or not password:
        return _page("login.html", 422, error="Enter your e-mail address and your password.", **again)
    try:
        session = await sessions.sign_in(email.strip(), password)
    except Problem as problem:
        message = "Wrong e-mail address or password." if problem.status in (401, 422) else problem.detail
        return _page("login.html", 401 if problem.status == 422 else problem.status, error=message, **again)
    response = RedirectResponse(_own_page(next), 303)
    set_session_cookie(response, request, sessions.seal(session))
    return response


@router.post("/logout")
async def logout(platform: CurrentPlatform, access: CurrentAccess) -> Response:
    """Sign out here in any case, and at the orchestrator."""
    response: Response = RedirectResponse("/login", 303)
    try:
        await platform.logout(access.token)
    except Problem as problem:
        if problem.status != 401:  # else it was ended there before
            error = f"You are signed out of this browser, but perhaps not of others. {problem.detail}"
            response = _page("login.html", problem.status, next="/", email="", error=error)
    response.delete_cookie(COOKIE)
    return response


@router.get("/")
async def home(platform: CurrentPlatform, access: CurrentAccess) -> Response:
    """What is spent, what could be saved, what is going on."""
    last_event = await _last_event(platform, access)
    data = await dashboard.overview(platform, access.token, access.identity.customer_id)
    known = data.figures.recommendations
    pending = sorted(
        (one for one in known if one.status == RecommendationStatus.PENDING), key=lambda one: -one.estimated_savings
    )
    objected = [one for one in known if one.status == RecommendationStatus.REJECTED and refused(one)][:_OBJECTED_SHOWN]
    return _page(
        "home.html",
        identity=access.identity,
        last_event=last_event,
        data=data,
        pending=pending,
        objected=objected,
        planned=STEPS,
    )


@router.get("/optimizations/{optimization_id}")
async def optimization_page(optimization_id: str, platform: CurrentPlatform, access: CurrentAccess) -> Response:
    """One optimization: its steps, and what was predicted against what was measured."""
    last_event = await _last_event(platform, access)
    optimization = await platform.optimization(access.token, optimization_id)
    known = await platform.recommendations(access.token, access.identity.customer_id)
    recommendation = next((one for one in known if one.id == optimization.recommendation_id), None)
    return _page(
        "optimization.html",
        identity=access.identity,
        last_event=last_event,
        optimization=optimization,
        recommendation=recommendation,
        planned=STEPS,
        ended=optimization.status in FINAL,
    )


@router.post("/recommendations/{recommendation_id}/approve")
async def approve(recommendation_id: str, platform: CurrentPlatform, access: CurrentAccess) -> Response:
    """Approve, and go to where it can be watched."""
    approved = await platform.approve(access.token, recommendation_id)
    return RedirectResponse(f"/optimizations/{approved.optimization_id}", 303)


@router.post("/recommendations/{recommendation_id}/reject")
async def reject(
    recommendation_id: str, platform: CurrentPlatform, access: CurrentAccess, reason: Typed = ""
) -> Response:
    """Reject with a reason."""
    if not reason.strip():
        raise Problem(422, "invalid", "Say why you do not want it: the agents learn from it.")
    await platform.reject(access.token, recommendation_id, reason)
    return RedirectResponse("/", 303)


@router.get("/portal/customers/{customer_id}/dashboard")
async def dashboard_json(customer_id: str, platform: CurrentPlatform, access: CurrentAccess) -> dashboard.Dashboard:
    """The first page's figures as JSON."""
    if customer_id != access.identity.customer_id:
        raise not_found("customer")
    return await dashboard.dashboard(platform, access.token, customer_id)


async def _last_event(platform: Platform, access: Access) -> int:
    """The number after which the page asks for events; taken before its data, so that none falls in between."""
    return await platform.last_event(access.token, access.identity.customer_id)


def _own_page(target: str) -> str:
    """Where to go after signing in: a path of ours, never another site."""
    return target if target.startswith("/") and not target.startswith(("//", "/\\")) else "/"
