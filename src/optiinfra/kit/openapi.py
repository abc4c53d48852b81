"""The OpenAPI document: what FastAPI knows of a route, and the credential that it needs and the errors it answers."""

from collections.abc import Collection, Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from optiinfra.kit.problems import MEDIA_TYPE, ProblemDetails

Responses = dict[int | str, dict[str, Any]]

_SCHEMAS_OF_FASTAPI = ("HTTPValidationError", "ValidationError")
_METHODS = frozenset({"delete", "get", "patch", "post", "put"})


def may_answer(*statuses: int) -> Responses:
    """`responses=` of a route with errors of its own, besides those that `install` knows by the route's kind."""
    return {status: _problem(HTTPStatus(status).phrase) for status in statuses}


def install(app: FastAPI, public: Collection[str]) -> None:
    """Have the application's document name errors and credentials; `public` are the paths that need none."""
    describe = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(describe(), public)
        return describe()

    app.openapi = complete  # type: ignore[method-assign]  # the way that FastAPI's own documentation has


def _complete(document: dict[str, Any], public: Collection[str]) -> None:
    for path, routes in document["paths"].items():
        for operation in (routes[method] for method in routes if method in _METHODS):
            operation["responses"].pop("422", None)  # FastAPI's own shape, which we never answer
            for status, words in _errors(path, operation, open_to_all=path in public):
                operation["responses"].setdefault(status, _problem(words))
            if path not in public:
                operation["security"] = [{"bearer": []}]
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in _SCHEMAS_OF_FASTAPI:
        schemas.pop(name, None)
    schemas["ProblemDetails"] = ProblemDetails.model_json_schema()
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}


def _errors(path: str, operation: dict[str, Any], *, open_to_all: bool) -> Iterator[tuple[str, str]]:
    """Status and description of what a route of this kind answers: who is asked for, what is asked about, and how."""
    if not open_to_all:
        yield "401", "No valid credential"
        yield "403", "Not for callers of this kind or role"
    if "{" in path:
        yield "404", "There is none, or it is another customer's"
    if "requestBody" in operation:
        yield "413", "The body is larger than is read"
    if "requestBody" in operation or any(each["in"] != "path" for each in operation.get("parameters", [])):
        yield "422", "Not the right shape; `errors` names each place"
    yield "5XX", "A fault of ours, or something that we depend on does not answer"


def _problem(words: str) -> dict[str, Any]:
    return {"description": words, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}}
