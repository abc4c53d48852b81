"""The pages and their forms."""

from itertools import islice

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from optiinfra.api import calls
from optiinfra.domain.optimization import FINAL, STEPS
from optiinfra.domain.recommendation import ADVICE_ONLY, RecommendationStatus
from optiinfra.kit.problems import Problem, not_found
from optiinfra.portal import dashboard
from optiinfra.portal.browser import set_session_cookie
from optiinfra.portal.dashboard import refused
from optiinfra.portal.dependencies import CurrentAccess, CurrentPlatform, CurrentSessions, FormField, Joined
from optiinfra.portal.forms import entered
from optiinfra.portal.platform import Platform
from optiinfra.portal.sessions import COOKIE, Access
from optiinfra.portal.views import page

router = APIRouter()

_REFUSED_SHOWN = 5
"""How many of the recommendations that a validator refused are shown, newest first."""


@router.get("/login")
async def login_page(
    request: Request,
    sessions: CurrentSessions,
    joined: Joined,
    next: str = "/",  # noqa: A002
) -> Response:
    """The sign-in form; a user who is signed in already is redirected, unless somebody has just joined here."""
    email = joined.recall(request)
    if email is None and sessions.unseal(request.cookies.get(COOKIE)):
        return RedirectResponse(_local_path(next), 303)
    response = _login_form(next, email or "", joined=email is not None)
    if email is not None:
        joined.forget(response)
    return response


@router.post("/login")
async def login(
    request: Request,
    sessions: CurrentSessions,
    email: FormField = "",
    password: FormField = "",
    next: FormField = "/",  # noqa: A002
) -> Response:
    """Sign in, or show the form again with an error."""
    if not email.strip() or not password:
        return _login_form(next, email, status=422, error="Enter your e-mail address and your password.")
    try:
        session = await sessions.sign_in(email.strip(), password)
    except Problem as problem:
        message = "Wrong e-mail address or password." if problem.status in (401, 422) else problem.detail
        status = 401 if problem.status == 422 else problem.status
        return _login_form(next, email, status=status, error=message)
    response = RedirectResponse(_local_path(next), 303)
    set_session_cookie(response, request, sessions.seal(session))
    return response


@router.post("/logout")
async def logout(platform: CurrentPlatform, access: CurrentAccess) -> Response:
    """Delete the cookie in any case, and end the session at the orchestrator."""
    response: Response = RedirectResponse("/login", 303)
    try:
        await platform.send(calls.logout(), access.token)
    except Problem as problem:
        if problem.status != 401:  # 401: the session has ended already
            error = f"This browser is signed out, but the session may not have ended. {problem.detail}"
            response = _login_form(status=problem.status, error=error)
    response.delete_cookie(COOKIE)
    return response


@router.get("/")
async def home(platform: CurrentPlatform, access: CurrentAccess) -> Response:
    """The dashboard: spend, possible savings, optimizations in progress."""
    last_event = await _last_event(platform, access)
    data = await dashboard.overview(platform, access.token, access.identity.customer_id)
    known = data.figures.recommendations
    pending = sorted(
        (one for one in known if one.status == RecommendationStatus.PENDING), key=lambda one: -one.estimated_savings
    )
    refused_by_validator = (one for one in known if one.status == RecommendationStatus.REJECTED and refused(one))
    return page(
        "home.html",
        identity=access.identity,
        last_event=last_event,
        data=data,
        pending=pending,
        refused_recommendations=list(islice(refused_by_validator, _REFUSED_SHOWN)),
        planned=STEPS,
        advice_only=ADVICE_ONLY,
    )


@router.get("/optimizations/{optimization_id}")
async def optimization_page(optimization_id: str, platform: CurrentPlatform, access: CurrentAccess) -> Response:
    """One optimization: its steps, and predicted against measured figures."""
    last_event = await _last_event(platform, access)
    optimization = await platform.send(calls.optimization(optimization_id), access.token)
    known = await platform.send(calls.recommendations(access.identity.customer_id), access.token)
    recommendation = next((one for one in known if one.id == optimization.recommendation_id), None)
    return page(
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
    """Approve, and show the optimization."""
    approved = await platform.send(calls.approve(recommendation_id), access.token)
    return RedirectResponse(f"/optimizations/{approved.optimization_id}", 303)


@router.post("/recommendations/{recommendation_id}/reject")
async def reject(
    recommendation_id: str, platform: CurrentPlatform, access: CurrentAccess, reason: FormField = ""
) -> Response:
    """Reject with a reason."""
    if not reason.strip():
        raise Problem(422, "invalid", "Say why you do not want it: the agents learn from it.")
    with entered():
        call = calls.reject(recommendation_id, reason)
    await platform.send(call, access.token)
    return RedirectResponse("/", 303)


@router.get("/portal/customers/{customer_id}/dashboard")
async def dashboard_json(customer_id: str, platform: CurrentPlatform, access: CurrentAccess) -> dashboard.Dashboard:
    """The dashboard as JSON."""
    if customer_id != access.identity.customer_id:
        raise not_found("customer")
    return await dashboard.dashboard(platform, access.token, customer_id)


def _login_form(
    target: str = "/", email: str = "", *, status: int = 200, error: str | None = None, joined: bool = False
) -> Response:
    return page("login.html", status, next=target, email=email, error=error, joined=joined)


async def _last_event(platform: Platform, access: Access) -> int:
    """The event number after which the page streams; read before the page's data, so that no event is missed."""
    return (await platform.send(calls.latest_event(access.identity.customer_id), access.token)).seq


def _local_path(target: str) -> str:
    """The target of a redirect after sign-in: a path on this site, never another site."""
    return target if target.startswith("/") and not target.startswith(("//", "/\\")) else "/"
