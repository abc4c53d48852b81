"""The portal's application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from optiinfra.kit import http
from optiinfra.kit.app import create_app
from optiinfra.portal import account, audit, cloud, credentials, join, live, pages, users
from optiinfra.portal.browser import BrowserMiddleware
from optiinfra.portal.joined import JOINED_PURPOSE, JoinedAddresses
from optiinfra.portal.key_ring import KeyRing
from optiinfra.portal.platform import Platform
from optiinfra.portal.sessions import PURPOSE, Sessions
from optiinfra.portal.settings import Settings
from optiinfra.portal.views import problem_page

_ANSWER_SECONDS = 30.0
"""Deadline of a page. The orchestrator's client times out earlier, so that an error page can be shown."""
_STATIC = Path(str(files("optiinfra.portal") / "static"))


def create(settings: Settings, orchestrator: httpx.AsyncClient | None = None) -> FastAPI:
    """The application; `orchestrator` is the client to reach it with, by default one for the settings' address."""
    client = orchestrator or http.client(settings.orchestrator_url)
    platform = Platform(client, settings.portal_secret)
    keys = settings.portal_session_key, settings.previous_portal_session_keys
    sessions = Sessions(KeyRing(PURPOSE, *keys), platform)
    joined_addresses = JoinedAddresses(KeyRing(JOINED_PURPOSE, *keys))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    app = create_app(
        "portal",
        settings.version,
        lifespan=lifespan,
        authenticate=sessions.authenticate,
        public=["/api/health", "/join", "/login", *(f"/static/{file.name}" for file in _STATIC.iterdir())],
        checks={"orchestrator": platform.ready},
        answer_seconds=_ANSWER_SECONDS,
    )
    app.add_middleware(BrowserMiddleware, sessions=sessions, render_problem=problem_page)
    app.state.platform, app.state.sessions, app.state.joined = platform, sessions, joined_addresses
    for module in (pages, join, audit, cloud, users, credentials, account, live):
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=_STATIC))

    @app.get("/api/health")
    async def health() -> dict[str, Any]:
        return {"status": "healthy", "service": "portal", "version": settings.version, "checks": ["orchestrator"]}

    return app
