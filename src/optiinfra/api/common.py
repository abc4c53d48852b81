"""What every wire shape shares."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, StringConstraints


class Wire(BaseModel):
    """A shape that leaves us: unknown keys are ignored on the way in, so that a newer peer can add some."""

    model_config = ConfigDict(frozen=True)


class Body(BaseModel):
    """A shape that a person or program sends us: an unknown key is their mistake, and said so."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


Moment = Annotated[AwareDatetime, AfterValidator(_utc)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=200)]


def now() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(UTC)
