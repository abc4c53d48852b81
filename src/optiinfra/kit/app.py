"""The application that every service is: health, readiness, metrics, traces, authentication, problem details."""

import asyncio
import secrets
import socket
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import structlog
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from optiinfra.kit import logging, openapi, problems
from optiinfra.kit.auth import PUBLIC_ROUTES, Authenticate, AuthenticationMiddleware
from optiinfra.kit.bodies import BodyLimitMiddleware
from optiinfra.kit.deadline import DeadlineMiddleware
from optiinfra.kit.waiting import give_up
from optiinfra.stores.errors import StoreUnavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")

Check = Callable[[], Coroutine[Any, Any, None]]
"""Raises when a dependency does not answer. Everybody may read the kind of exception, and StoreUnavailable's text."""

REQUEST_SECONDS = 8.0
"""How long a call may wait for the beginning of its answer: less than our own clients wait (`kit.http`)."""
CHECK_SECONDS = 2.0

_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_LATENCY = Histogram("optiinfra_http_request_seconds", "Time to answer", ["method", "route", "status"])


def create_app(
    service: str,
    version: str,
    *,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    authenticate: Authenticate,
    public: Collection[str] = (),
    checks: Mapping[str, Check] | None = None,
    answer_seconds: float = REQUEST_SECONDS,
    long_calls: Collection[str] = (),
) -> FastAPI:
    """A FastAPI application with what all services share.

    `public` are the paths that need no credential, besides health and metrics; `checks` are tried by
    `/ready`; they may be filled in while the service starts. `answer_seconds` is how long a call may
    wait for the beginning of its answer, and `long_calls` (see `kit.deadline`) are those that may wait longer.
    """
    logging.configure(service, version)
    app = FastAPI(
        title=f"OptiInfra {service}",
        version=version,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # it would lead where the caller's own Host header says
    )
    open_to_all = PUBLIC_ROUTES | frozenset(public)
    app.add_middleware(BodyLimitMiddleware)
    app.add_middleware(AuthenticationMiddleware, authenticate=authenticate, public=open_to_all)
    app.add_middleware(DeadlineMiddleware, seconds=answer_seconds, long_calls=long_calls)
    app.add_middleware(_Observe)
    problems.install(app)
    openapi.install(app, open_to_all)
    app.state.stopping = asyncio.Event()
    dependencies: Mapping[str, Check] = {} if checks is None else checks

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "healthy", "service": service, "version": version, "checks": sorted(dependencies)}

    @app.get("/ready", responses={503: {"description": "A dependency does not answer", "model": dict[str, Any]}})
    async def ready() -> JSONResponse:
        outcomes = await asyncio.gather(*(_outcome(check) for check in dependencies.values()))
        results = dict(zip(dependencies, outcomes, strict=True))
        healthy = all(result == "ok" for result in results.values())
        body = {"status": "ready" if healthy else "unavailable", "service": service, "checks": results}
        return JSONResponse(body, 200 if healthy else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


def serve(app: FastAPI, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; open event streams are cut after a second."""
    config = uvicorn.Config(
        app, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=1, timeout_keep_alive=30
    )
    _Server(config, app.state.stopping).run()


async def unless_stopping(app: FastAPI, work: Coroutine[Any, Any, T], otherwise: T) -> T:
    """What the work comes to; or `otherwise`, as soon as the service is asked to stop: for answers that wait long."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(app.state.stopping.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else otherwise
    finally:
        stopping.cancel()
        working.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping.set()
        await super().shutdown(sockets)


async def _outcome(check: Check) -> str:
    asking = asyncio.ensure_future(check())
    try:
        await asyncio.wait((asking,), timeout=CHECK_SECONDS)
    finally:
        if not asking.done():
            give_up(asking)
    if not asking.done():
        return f"no answer within {CHECK_SECONDS:.0f} s"
    try:
        asking.result()
    except StoreUnavailable as error:
        return str(error)
    except Exception as error:  # its text may hold what a stranger, who may ask this, should not read
        log.warning("a dependency cannot be asked", error=str(error))
        return type(error).__name__
    return "ok"


class _Observe:
    """Gives each call a trace id, answers with it, and counts its time by route."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        offered = dict(scope["headers"]).get(logging.TRACE_HEADER.encode(), b"").decode("latin-1")
        trace = offered if offered.isascii() and offered.isalnum() and len(offered) <= 64 else secrets.token_hex(16)
        logging.bind_trace(trace)
        started, status = time.perf_counter(), 0

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (logging.TRACE_HEADER.encode(), trace.encode())]
            await send(message)

        try:
            if "\0" in scope["path"]:  # no id of ours holds one, and PostgreSQL refuses to compare with it
                await problems.problem_response(404, "not_found", "no such path")(scope, receive, observed_send)
            else:
                await self.app(scope, receive, observed_send)
        except Exception:
            status = 500
            raise
        finally:
            if scope["type"] == "http":
                route = getattr(scope.get("route"), "path", "unmatched")
                method = scope["method"] if scope["method"] in _METHODS else "other"
                _LATENCY.labels(method, route, status).observe(time.perf_counter() - started)
