"""Base classes and types of all shapes."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints


class Wire(BaseModel):
    """Base of responses. Unknown fields are ignored when parsing, so that a newer peer can add some."""

    model_config = ConfigDict(frozen=True)


class Body(BaseModel):
    """Base of request bodies. Unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _utc(moment: datetime) -> datetime:
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise ValueError(f"the year must lie between {_FIRST_YEAR} and {_LAST_YEAR}")
    return moment.astimezone(UTC)


def storable(value: Any, depth: int = 0) -> Any:
    """JSON from other programs without what stores cannot hold: NUL characters and unpaired surrogates are replaced.

    ValueError for a number that is not finite or too large, a text that is too long, and too many levels or values.
    """
    if depth > _MAX_DEPTH:
        raise ValueError(f"is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, str):
        return _storable_text(value)
    if isinstance(value, float | int) and not abs(value) <= _LARGEST:  # also true for NaN
        raise ValueError(f"has a number that is not between -{_LARGEST:g} and {_LARGEST:g}")
    if not isinstance(value, dict | list):
        return value
    if len(value) > _MOST_VALUES:
        raise ValueError(f"has more than {_MOST_VALUES:,} values in one list or object")
    if isinstance(value, list):
        return [storable(item, depth + 1) for item in value]
    return {_storable_text(key): storable(item, depth + 1) for key, item in value.items()}


def _storable_text(text: str) -> str:
    if len(text) > _LONGEST_VALUE:
        raise ValueError(f"has a text of more than {_LONGEST_VALUE:,} characters")
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


PORTAL_SECRET_HEADER, PORTAL_CLIENT_HEADER = "x-optiinfra-portal-secret", "x-optiinfra-client-address"
"""With its own secret the portal forwards the address of its user, on whose behalf it calls."""

_MAX_DEPTH = 32
_LARGEST = 1e18
_LONGEST_VALUE = 100_000
"""A model's answer to a golden prompt is the longest."""
_MOST_VALUES = 10_000
# The stores cannot hold NUL characters.
WITHOUT_NUL = r"^[^\x00]*$"
_FIRST_YEAR, _LAST_YEAR = 1970, 2199
FIRST_MOMENT, END_MOMENT = datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC), datetime(_LAST_YEAR + 1, 1, 1, tzinfo=UTC)

FreeJson = Annotated[dict[str, Any], AfterValidator(storable)]
"""JSON with arbitrary keys and values."""
Moment = Annotated[AwareDatetime, AfterValidator(_utc)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True, pattern=WITHOUT_NUL)]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=WITHOUT_NUL)]
"""A name or id that another program has given."""
LONGEST_PROSE = 100_000
Prose = Annotated[str, StringConstraints(max_length=LONGEST_PROSE, pattern=WITHOUT_NUL)]
"""An explanation. That of an estate has a sentence for each deployment."""
Finite = Annotated[float, Field(allow_inf_nan=False, gt=-1e18, lt=1e18)]
"""A figure; bounded, so that sums do not overflow. Not by `ge` and `le`, which would replace those of a field."""
Secret = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=WITHOUT_NUL)]


def now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)
