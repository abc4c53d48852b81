"""The owner's settings of credentials: API keys and agent tokens, each shown once when it is created."""

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.responses import RedirectResponse, Response

from optiinfra.api import calls
from optiinfra.api.credentials import NewApiKey
from optiinfra.kit.problems import Problem
from optiinfra.portal.dependencies import CurrentAccess, CurrentPlatform, FormField
from optiinfra.portal.forms import FormId, entered, new_form_id, refusal
from optiinfra.portal.platform import Platform
from optiinfra.portal.sessions import Access
from optiinfra.portal.views import page

router = APIRouter()

_PATH = "/settings/keys"
_SCOPES = {"read": "Read", "approve": "Read and approve"}
_DEFAULTS = {"name": "", "scope": "read", "expires_in_days": "90"}


@router.get(_PATH)
async def keys_page(platform: CurrentPlatform, access: CurrentAccess) -> Response:
    """The API keys and agent tokens that can be used."""
    return await _page(platform, access)


@router.post(_PATH + "/api-keys")
async def create_api_key(
    platform: CurrentPlatform,
    access: CurrentAccess,
    name: FormField = "",
    scope: FormField = "",
    expires_in_days: FormField = "",
    form_id: FormId = "",
) -> Response:
    """Create an API key; the response shows it, once."""
    values = {"name": name, "scope": scope, "expires_in_days": expires_in_days}
    try:
        with entered():
            body = NewApiKey.model_validate(values)
        call = calls.issue_api_key(access.identity.customer_id, body)
        issued = await platform.send(call, access.token, key=form_id)
    except Problem as problem:
        return await _page(platform, access, problem, entered=values)
    return await _page(platform, access, issued_key=issued)


@router.post(_PATH + "/api-keys/{key_id}/delete")
async def delete_api_key(key_id: str, platform: CurrentPlatform, access: CurrentAccess) -> Response:
    """Delete an API key."""
    try:
        await platform.send(calls.delete_api_key(access.identity.customer_id, key_id), access.token)
    except Problem as problem:
        return await _page(platform, access, problem)
    return RedirectResponse(_PATH, 303)


@router.post(_PATH + "/agent-tokens")
async def create_agent_token(platform: CurrentPlatform, access: CurrentAccess, form_id: FormId = "") -> Response:
    """Create an agent token; the response shows it and the command that uses it, once."""
    try:
        call = calls.agent_install_command(access.identity.customer_id)
        installation = await platform.send(call, access.token, key=form_id)
    except Problem as problem:
        return await _page(platform, access, problem)
    return await _page(platform, access, installation=installation)


@router.post(_PATH + "/agent-tokens/{token_id}/delete")
async def delete_agent_token(token_id: str, platform: CurrentPlatform, access: CurrentAccess) -> Response:
    """Delete an agent token."""
    try:
        await platform.send(calls.delete_agent_token(access.identity.customer_id, token_id), access.token)
    except Problem as problem:
        return await _page(platform, access, problem)
    return RedirectResponse(_PATH, 303)


async def _page(platform: Platform, access: Access, problem: Problem | None = None, **shown: Any) -> Response:
    error = refusal(problem)
    api_keys, agent_tokens = await asyncio.gather(
        platform.send(calls.api_keys(access.identity.customer_id), access.token),
        platform.send(calls.agent_tokens(access.identity.customer_id), access.token),
    )
    values = {"entered": _DEFAULTS, "issued_key": None, "installation": None} | shown
    return page(
        "settings_keys.html",
        problem.status if problem else 200,
        identity=access.identity,
        tab=_PATH,
        error=error,
        api_keys=api_keys,
        agent_tokens=agent_tokens,
        scopes=_SCOPES,
        form_id=new_form_id(),
        **values,
    )
