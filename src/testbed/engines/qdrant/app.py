"""The REST routes of the collections.

Handlers run one at a time on the event loop: the engine takes microseconds, and a single thread needs no locks.
"""

import contextlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from testbed.engines.qdrant.collection import Collection, Collections, ConflictError, NotFoundError
from testbed.engines.qdrant.translate import BadRequestError, Json, UnsupportedError

VERSION = "1.20.0"  # of the REST API that this layer implements
STATUS = {NotFoundError: 404, ConflictError: 409, UnsupportedError: 501, BadRequestError: 400}
READS = {"/points", "/points/scroll", "/points/count", "/points/query"}

Handler = Callable[[Request, Json], Any]


class Access:
    """Access control: the API key may do everything, the read-only key may only read."""

    def __init__(self, key: str, read_only_key: str) -> None:
        self._key, self._read_only_key = key.encode(), read_only_key.encode()

    def refusal(self, request: Request) -> Response | None:
        """The error response when the caller lacks permission, or None."""
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        given = request.headers.get("api-key", bearer).encode()
        if hmac.compare_digest(given, self._key):
            return None
        if not hmac.compare_digest(given, self._read_only_key):
            return PlainTextResponse("Must provide an API key or an Authorization bearer token", 401)
        below = request.url.path.removeprefix(f"/collections/{request.path_params.get('name')}")
        if request.method == "GET" or (request.method == "POST" and below in READS):
            return None
        return PlainTextResponse("Forbidden: the read-only key changes nothing", 403)


def route(path: str, method: str, handler: Handler, access: Access) -> Route:
    """A route that checks access, parses JSON, and wraps the result in Qdrant's envelope."""

    async def endpoint(request: Request) -> Response:
        started = time.perf_counter()
        refusal = access.refusal(request)
        if refusal is not None:
            return refusal
        try:
            raw = await request.body()
            result = handler(request, json.loads(raw) if raw else {})
        except tuple(STATUS) as error:
            return failure(str(error), STATUS[type(error)], started)
        except (KeyError, TypeError, ValueError) as error:
            return failure(f"Format error in JSON body: {type(error).__name__}: {error}", 400, started)
        return JSONResponse({"result": result, "status": "ok", "time": time.perf_counter() - started})

    return Route(path, endpoint, methods=[method])


def failure(message: str, status: int, started: float) -> Response:
    """An error in Qdrant's format."""
    return JSONResponse({"status": {"error": message}, "time": time.perf_counter() - started}, status)


async def version(_request: Request) -> Response:
    """`GET /`, public as on the server, because clients compare versions before they authenticate."""
    return JSONResponse({"title": "qdrant - vector search engine", "version": VERSION, "commit": "embedded"})


async def healthz(_request: Request) -> Response:
    """`GET /healthz`, public."""
    return PlainTextResponse("healthz check passed")


def create_app(root: Path, key: str, read_only_key: str) -> Starlette:
    """The application for the collections under `root`."""
    collections = Collections(root)
    access = Access(key, read_only_key)

    def on_collection(method: Callable[[Collection, Json], Any]) -> Handler:
        return lambda request, body: method(collections.get(request.path_params["name"]), body)

    def name(request: Request) -> str:
        return str(request.path_params["name"])

    one = "/collections/{name}"
    points = f"{one}/points"
    table: list[tuple[str, str, Handler]] = [
        ("/collections", "GET", lambda _r, _b: {"collections": [{"name": each} for each in collections.names()]}),
        (one, "PUT", lambda request, body: collections.create(name(request), body)),
        (one, "DELETE", lambda request, _b: collections.drop(name(request))),
        (f"{one}/exists", "GET", lambda request, _b: {"exists": name(request) in collections.names()}),
        (one, "GET", on_collection(lambda collection, _b: collection.info())),
        (f"{one}/index", "PUT", on_collection(Collection.create_index)),
        (points, "PUT", on_collection(Collection.upsert)),
        (points, "POST", on_collection(Collection.retrieve)),
        (f"{points}/delete", "POST", on_collection(Collection.delete)),
        (f"{points}/payload", "POST", on_collection(Collection.set_payload)),
        (f"{points}/scroll", "POST", on_collection(Collection.scroll)),
        (f"{points}/count", "POST", on_collection(Collection.count)),
        (f"{points}/query", "POST", on_collection(Collection.query)),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        collections.close()

    routes = [Route("/", version), Route("/healthz", healthz)]
    routes += [route(path, method, handler, access) for path, method, handler in table]
    return Starlette(routes=routes, lifespan=lifespan)
