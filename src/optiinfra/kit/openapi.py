"""The OpenAPI document: adds the credential that each route needs and the errors that it may return."""

from collections.abc import Collection, Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from optiinfra.api.problems import ProblemDetails
from optiinfra.kit.problems import MEDIA_TYPE

Responses = dict[int | str, dict[str, Any]]

_SCHEMAS_OF_FASTAPI = ("HTTPValidationError", "ValidationError")
_METHODS = frozenset({"delete", "get", "patch", "post", "put"})


def error_responses(*statuses: int) -> Responses:
    """Value of `responses=` for a route's own errors; `install` adds those that every similar route has."""
    return {status: _problem(HTTPStatus(status).phrase) for status in statuses}


def install(app: FastAPI, public: Collection[str]) -> None:
    """Add errors and credentials to the application's document; the `public` paths need no credential."""
    describe = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(describe(), public)
        return describe()

    app.openapi = complete  # type: ignore[method-assign]  # as FastAPI's documentation recommends


def _complete(document: dict[str, Any], public: Collection[str]) -> None:
    for path, routes in document["paths"].items():
        for operation in (routes[method] for method in routes if method in _METHODS):
            operation["responses"].pop("422", None)  # FastAPI's own shape, which we never return
            for status, description in _errors(path, operation, open_to_all=path in public):
                operation["responses"].setdefault(status, _problem(description))
            if path not in public:
                operation["security"] = [{"bearer": []}]
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in _SCHEMAS_OF_FASTAPI:
        schemas.pop(name, None)
    schemas["ProblemDetails"] = ProblemDetails.model_json_schema()
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}


def _errors(path: str, operation: dict[str, Any], *, open_to_all: bool) -> Iterator[tuple[str, str]]:
    """Status and description of the errors that follow from a route's credential, path and parameters."""
    if not open_to_all:
        yield "401", "No valid credential"
        yield "403", "The credential's kind or role may not do this"
    if "{" in path:
        yield "404", "No such resource, or it belongs to another customer"
    if "requestBody" in operation:
        yield "413", "The body exceeds the size limit"
    if "requestBody" in operation or any(each["in"] != "path" for each in operation.get("parameters", [])):
        yield "422", "Validation failed; `errors` names each field"
    yield "5XX", "Internal error, or a dependency is unavailable"


def _problem(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
    }
