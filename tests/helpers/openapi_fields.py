"""The text fields of an OpenAPI document: a body for every operation, and every place in it that holds a text."""

import copy
from collections.abc import Iterator
from typing import Any

Json = Any
Place = tuple[str | int, ...]
"""Keys and indexes that lead to a value; a last `KEY` stands for the key of an entry instead of its value."""
KEY = "(key)"


def example(schema: dict[str, Any], components: dict[str, Any]) -> Json:
    """A value of the schema with every field. It has the right types, and need not be valid otherwise."""
    if "$ref" in schema:
        return example(components[schema["$ref"].rpartition("/")[2]], components)
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            options = [each for each in schema[choice] if each.get("type") != "null"]
            return example(options[0], components)
    if "enum" in schema or "const" in schema:
        return schema["enum"][0] if "enum" in schema else schema["const"]
    match schema.get("type"):
        case "object" if "properties" in schema:
            return {name: example(each, components) for name, each in schema["properties"].items()}
        case "object":
            of_values = schema.get("additionalProperties")
            return {"x": example(of_values, components) if isinstance(of_values, dict) and of_values else "x"}
        case "array":
            return [example(schema.get("items", {}), components)]
        case "integer" | "number":
            return 1
        case "boolean":
            return True
        case _:
            return "x"


def text_places(value: Json, above: Place = ()) -> Iterator[Place]:
    """The places of all texts in a value, the keys of its objects included if they are not those of a shape."""
    if isinstance(value, str):
        yield above
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from text_places(each, (*above, index))
    elif isinstance(value, dict):
        for name, each in value.items():
            if name == "x":  # the one entry of an object with free keys
                yield (*above, name, KEY)
            yield from text_places(each, (*above, name))


def with_text(value: Json, place: Place, text: str) -> Json:
    """A copy of the value with another text in that place."""
    if not place:
        return text
    changed = copy.deepcopy(value)
    *path, last = place
    if last == KEY:
        *path, name = path
        last = name
    target = changed
    for step in path:
        target = target[step]
    if place[-1] == KEY:
        target[text] = target.pop(last)
    else:
        target[last] = text
    return changed
