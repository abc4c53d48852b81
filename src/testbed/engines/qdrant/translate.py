"""Conversion between the JSON of Qdrant's REST API and the engine's objects.

Shapes are those of Qdrant's OpenAPI description. Unsupported features raise UnsupportedError.
"""

from typing import Any
from uuid import UUID

import qdrant_edge as edge

Json = dict[str, Any]


class BadRequestError(Exception):
    """The request is invalid; the message says what is wrong and what is expected."""


class UnsupportedError(Exception):
    """The request is valid for Qdrant's server, but not supported by the embedded layer."""


def _enum(kind: Any, value: str) -> Any:
    name = "".join(word.capitalize() for word in value.split("_"))
    found = getattr(kind, name, None)
    if found is None:
        raise BadRequestError(f"unknown {kind.__name__} {value!r}")
    return found


def vector_params(params: Json) -> Any:
    """One dense vector's size and distance."""
    if params.get("multivector_config") or params.get("quantization_config"):
        raise UnsupportedError("multivectors and quantization are not part of the embedded Qdrant")
    return edge.EdgeVectorParams(int(params["size"]), _enum(edge.Distance, params["distance"].lower()))


def shard_config(body: Json) -> Any:
    """A collection's creation request: one unnamed vector or several named ones."""
    if body.get("sparse_vectors"):
        raise UnsupportedError("sparse vectors are not part of the embedded Qdrant")
    vectors = body.get("vectors")
    if not vectors:
        raise BadRequestError("a collection needs `vectors`")
    if "size" in vectors:
        return edge.EdgeConfig(vectors=vector_params(vectors))
    return edge.EdgeConfig(vectors={name: vector_params(params) for name, params in vectors.items()})


def point_id(value: Any) -> int | str:
    """The engine's point id as JSON."""
    return value if isinstance(value, int) else str(value)


def point(value: Json) -> Any:
    """A point to store."""
    return edge.Point(value["id"], value.get("vector") or {}, value.get("payload"))


def points_of(body: Json) -> list[Any]:
    """The points of an upsert, given as a list or as columns."""
    if "points" in body:
        return [point(value) for value in body["points"]]
    batch = body["batch"]
    count = len(batch["ids"])
    vectors = batch["vectors"]
    if isinstance(vectors, dict):
        vectors = [{name: column[row] for name, column in vectors.items()} for row in range(count)]
    payloads = batch.get("payloads") or [None] * count
    return [edge.Point(*row) for row in zip(batch["ids"], vectors, payloads, strict=True)]


def record(value: Any) -> Json:
    """A stored point as JSON."""
    return {"id": point_id(value.id), "payload": value.payload, "vector": value.vector}


def scored(value: Any) -> Json:
    """A search result as JSON."""
    return record(value) | {"score": value.score, "version": value.version}


def selector(value: Any) -> Any:
    """Which payload keys to return: a boolean, a list of keys, or include/exclude."""
    if not isinstance(value, dict):
        return value
    if value.get("include") is not None:
        return edge.PayloadSelector.Include(value["include"])
    return edge.PayloadSelector.Exclude(value["exclude"])


def _match(value: Json) -> Any:
    kinds = {"value": edge.MatchValue, "any": edge.MatchAny, "except": edge.MatchExcept, "text": edge.MatchText}
    for key, kind in kinds.items():
        if key in value:
            return kind(value[key])
    raise UnsupportedError(f"match by {', '.join(value)} is not part of the embedded Qdrant")


def _range(value: Json) -> Any:
    bounds = {key: bound for key, bound in value.items() if bound is not None}
    dates = any(isinstance(bound, str) for bound in bounds.values())
    return (edge.RangeDateTime if dates else edge.RangeFloat)(**bounds)


def _condition(value: Json) -> Any:
    if value.get("has_id") is not None:
        return edge.HasIdCondition(set(value["has_id"]))
    if isinstance(value.get("is_empty"), dict):
        return edge.IsEmptyCondition(value["is_empty"]["key"])
    if isinstance(value.get("is_null"), dict):
        return edge.IsNullCondition(value["is_null"]["key"])
    if "key" in value:
        if value.get("match"):
            return edge.FieldCondition(value["key"], match=_match(value["match"]))
        if value.get("range"):
            return edge.FieldCondition(value["key"], range=_range(value["range"]))
        raise UnsupportedError(f"a condition on {value['key']!r} needs `match` or `range` in the embedded Qdrant")
    if value.keys() & {"must", "should", "must_not", "min_should"}:
        return filter_of(value)
    raise UnsupportedError(f"condition {', '.join(value)} is not part of the embedded Qdrant")


def filter_of(value: Json | None) -> Any:
    """A filter, or None for an empty one."""
    if not value:
        return None
    if value.get("min_should"):
        raise UnsupportedError("min_should is not part of the embedded Qdrant")
    clauses: Json = {}
    for clause in ("must", "should", "must_not"):
        conditions = value.get(clause)
        if conditions:
            listed = conditions if isinstance(conditions, list) else [conditions]
            clauses[clause] = [_condition(condition) for condition in listed]
    return edge.Filter(**clauses) if clauses else None


def nearest(query: Any, using: str | None) -> Any:
    """A nearest-neighbour query by a dense vector. None returns all points that match the filter."""
    if query is None:
        return None
    if isinstance(query, dict):
        if set(query) - {"nearest"}:
            raise UnsupportedError(f"query by {', '.join(query)} is not part of the embedded Qdrant")
        query = query["nearest"]
    if not isinstance(query, list) or not all(isinstance(part, int | float) for part in query):
        raise UnsupportedError("the embedded Qdrant searches by a dense vector only")
    return edge.Query.Nearest(query, using)


def field_schema(value: Any) -> Any:
    """The type of a payload index. Further parameters are ignored and keep the engine's defaults."""
    return _enum(edge.PayloadSchemaType, value["type"] if isinstance(value, dict) else value)


def checked_ids(ids: list[Any]) -> list[int | str | UUID]:
    """Validated point ids: unsigned integers or UUIDs, as the server requires."""
    for value in ids:
        if isinstance(value, str):
            try:
                UUID(value)
            except ValueError as error:
                raise BadRequestError(f"{value!r} is not a point id: use an unsigned integer or a UUID") from error
    return ids
