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
    """JSON from other programs without what stores cannot hold: NUL characters and unpaired surrogates are replaced."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {storable(key): storable(item, depth + 1) for key, item in value.items()}
    return [storable(item, depth + 1) for item in value] if isinstance(value, list) else value


PORTAL_SECRET_HEADER, PORTAL_CLIENT_HEADER = "x-optiinfra-portal-secret", "x-optiinfra-client-address"
"""With its own secret the portal forwards the address of its user, on whose behalf it calls."""

_MAX_DEPTH = 32
# The stores cannot hold NUL characters.
_WITHOUT_NUL = r"^[^\x00]*$"
_FIRST_YEAR, _LAST_YEAR = 1970, 2199
FIRST_MOMENT, END_MOMENT = datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC), datetime(_LAST_YEAR + 1, 1, 1, tzinfo=UTC)

FreeJson = Annotated[dict[str, Any], AfterValidator(storable)]
"""JSON with arbitrary keys and values."""
Moment = Annotated[AwareDatetime, AfterValidator(_utc)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True, pattern=_WITHOUT_NUL)]
Prose = Annotated[str, StringConstraints(pattern=_WITHOUT_NUL)]
"""A text of any length that the stores can hold."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_WITHOUT_NUL)]


def now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)
