"""Application factory of every service: health, readiness, metrics, traces, authentication, problem details."""

import asyncio
import gc
import secrets
import socket
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
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
from optiinfra.kit.bodies import MAX_VALUES, BodyLimitMiddleware
from optiinfra.kit.bulkhead import Admit, BulkheadMiddleware
from optiinfra.kit.deadline import DeadlineMiddleware
from optiinfra.kit.rate_limit import RateLimitMiddleware, SecondsToWait
from optiinfra.kit.store_outage import StoreOutageMiddleware
from optiinfra.kit.tasks import cancel_in_background, first_completed
from optiinfra.stores.errors import StoreUnavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")

Headers = Iterable[tuple[bytes, bytes]]
Check = Callable[[], Coroutine[Any, Any, None]]
"""Raises if a dependency does not answer. `/ready` is public: it shows StoreUnavailable's text, else the type only."""

REQUEST_SECONDS = 8.0
"""How long a request may wait for the start of its response: less than our own clients wait (`kit.http`)."""
CHECK_SECONDS = 2.0

_COLLECTED_OBJECTS = 50_000
"""How many more objects there are before the young ones are collected. With 700, Python's default, a batch of telemetry
caused a dozen collections, and every tenth batch a full one, which visits everything and takes 0.1 s."""
_PRIVATE_HEADERS: Headers = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
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
    large_bodies: Collection[str] = (),
    seconds_to_wait: SecondsToWait | None = None,
    admit: Admit | None = None,
    middleware: Sequence[Callable[[ASGIApp], ASGIApp]] = (),
    most_values: int = MAX_VALUES,
) -> FastAPI:
    """A FastAPI application with everything that all services share.

    `public` paths need no credential, besides health and metrics. `/ready` runs the `checks`; entries may be added
    while the service starts. A request may wait `answer_seconds` for the start of its response; `long_calls`
    (see `kit.deadline`) may wait longer, and `large_bodies` (see `kit.bodies`) may be larger than others, with
    at most `most_values`.
    `seconds_to_wait` limits the rate of authenticated requests, `admit` how many are carried out at once. `middleware`
    of the service sees every request before it is authenticated, and every response but those to a lost store or a
    missed deadline.
    """
    logging.configure(service, version)
    app = FastAPI(
        title=f"OptiInfra {service}",
        version=version,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the redirect would follow the caller's Host header
    )
    public_paths = PUBLIC_ROUTES | frozenset(public)
    app.add_middleware(BodyLimitMiddleware, public=public_paths, large=large_bodies, most_values=most_values)
    if admit is not None:
        app.add_middleware(BulkheadMiddleware, admit=admit)
    if seconds_to_wait is not None:
        app.add_middleware(RateLimitMiddleware, seconds_to_wait=seconds_to_wait)
    app.add_middleware(AuthenticationMiddleware, authenticate=authenticate, public=public_paths)
    for each in middleware:
        app.add_middleware(each)
    app.add_middleware(StoreOutageMiddleware)
    app.add_middleware(DeadlineMiddleware, seconds=answer_seconds, long_calls=long_calls)
    app.add_middleware(_Observe)
    problems.install(app)
    openapi.install(app, public_paths)
    app.state.shutdown = asyncio.Event()
    dependencies: Mapping[str, Check] = {} if checks is None else checks

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "healthy", "service": service, "version": version, "checks": sorted(dependencies)}

    @app.get("/ready", responses={503: {"description": "A dependency is unavailable", "model": dict[str, Any]}})
    async def ready() -> JSONResponse:
        outcomes = await asyncio.gather(*(_run_check(check) for check in dependencies.values()))
        results = dict(zip(dependencies, outcomes, strict=True))
        healthy = all(result == "ok" for result in results.values())
        body = {"status": "ready" if healthy else "unavailable", "service": service, "checks": results}
        return JSONResponse(body, 200 if healthy else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


def serve(app: FastAPI, host: str, port: int, trusted_proxies: str = "") -> None:
    """Serve until SIGTERM or SIGINT; open event streams are closed after a second.

    Only of `trusted_proxies`, addresses or networks separated by commas, is a forwarded client's address believed.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=30,
        ws_per_message_deflate=False,  # events are small, and each would be compressed for every stream
        forwarded_allow_ips=trusted_proxies,  # uvicorn's default trusts this machine, and a variable
    )
    _Server(config, app.state.shutdown).run()


async def cancel_on_shutdown(app: FastAPI, work: Coroutine[Any, Any, T], default: T) -> T:
    """The result of `work`; on shutdown cancel it and return `default`. For long polls."""

    async def shutdown() -> T:
        await app.state.shutdown.wait()
        return default

    return await first_completed(work, shutdown())


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, shutdown: asyncio.Event) -> None:
        super().__init__(config)
        self._shutdown = shutdown

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is loaded by now stays. A full collection would visit all of it, and stop every request meanwhile.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECTED_OBJECTS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._shutdown.set()
        await super().shutdown(sockets)


async def _run_check(check: Check) -> str:
    running = asyncio.ensure_future(check())
    try:
        await asyncio.wait((running,), timeout=CHECK_SECONDS)
    finally:
        if not running.done():
            cancel_in_background(running)
    if not running.done():
        return f"no answer within {CHECK_SECONDS:.0f} s"
    try:
        running.result()
    except StoreUnavailable as error:
        return str(error)
    except Exception as error:  # its text may contain internals, and this route is public
        log.warning("readiness check failed", error=str(error))
        return type(error).__name__
    return "ok"


def _missing(headers: Headers, present: Headers) -> Iterator[tuple[bytes, bytes]]:
    """The headers that a response lacks. A response with an ETag, which is a static file, may be kept by caches."""
    names = {name for name, _ in present}
    for name, value in headers:
        if name not in names and not (name == b"cache-control" and b"etag" in names):
            yield name, value


class _Observe:
    """Gives each request a trace id, returns it in a header, and measures latency by route.

    Responses may hold tokens or a customer's data, so no cache may keep them, and no browser guess their type.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        received = dict(scope["headers"]).get(logging.TRACE_HEADER.encode(), b"").decode("latin-1")
        trace = received if received.isascii() and received.isalnum() and len(received) <= 64 else secrets.token_hex(16)
        logging.bind_trace(trace)
        started, status, accepted = time.perf_counter(), 0, False

        async def observed_send(message: Message) -> None:
            nonlocal status, accepted
            if message["type"] == "websocket.accept":
                accepted = True
            elif message["type"] == "websocket.close" and not accepted:
                problems.count_refused_stream(message.get("code", 1000))
            elif message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    *_missing(_PRIVATE_HEADERS, message["headers"]),
                    (logging.TRACE_HEADER.encode(), trace.encode()),
                ]
            await send(message)

        try:
            if "\0" in scope["path"]:  # ids never contain NUL, and PostgreSQL cannot compare with it
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
