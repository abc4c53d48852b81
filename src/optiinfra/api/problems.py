"""Problem details (RFC 9457): the body of every error response, and the types that a client acts on."""

from pydantic import BaseModel

PREFIX = "urn:optiinfra:problem:"

STORE_UNAVAILABLE = f"{PREFIX}store_unavailable"
"""503: a store does not answer at the moment; try again."""

STARTING = f"{PREFIX}starting"
"""503: the service has not finished starting; try again."""


def kind_of(problem_type: str) -> str:
    """The short name at the end of a problem's `type`, such as `store_unavailable`."""
    return problem_type.rsplit(":", 1)[-1]


class FieldError(BaseModel):
    """One invalid field of a request: `where` is its path, such as `body.email`, `what` the reason."""

    where: str
    what: str


class ProblemDetails(BaseModel):
    """The body of every error response. `trace_id` finds the logs of the request; `errors` is present with 422."""

    type: str
    title: str
    status: int
    detail: str
    trace_id: str
    errors: list[FieldError] | None = None
