"""What every wire shape shares."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, StringConstraints


class Wire(BaseModel):
    """A shape that leaves us: unknown keys are ignored on the way in, so that a newer peer can add some."""

    model_config = ConfigDict(frozen=True)


class Body(BaseModel):
    """A shape that a person or program sends us: an unknown key is their mistake, and said so."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _utc(moment: datetime) -> datetime:
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise ValueError(f"the year must lie between {_FIRST_YEAR} and {_LAST_YEAR}")
    return moment.astimezone(UTC)


def storable(value: Any, depth: int = 0) -> Any:
    """What others' programs answered, with nothing in it that no store can keep: NUL, or half a surrogate pair."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {storable(key): storable(item, depth + 1) for key, item in value.items()}
    return [storable(item, depth + 1) for item in value] if isinstance(value, list) else value


_MAX_DEPTH = 32
# No store of ours can keep a NUL, and none of what we store needs one.
_WITHOUT_NUL = r"^[^\x00]*$"
_FIRST_YEAR, _LAST_YEAR = 1970, 2199

FreeJson = Annotated[dict[str, Any], AfterValidator(storable)]
"""Keys and values of somebody else's choice."""
Moment = Annotated[AwareDatetime, AfterValidator(_utc)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True, pattern=_WITHOUT_NUL)]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_WITHOUT_NUL)]


def now() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(UTC)
