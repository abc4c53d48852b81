"""Types of problem details (RFC 9457) that a client acts on."""

PREFIX = "urn:optiinfra:problem:"

STORE_UNAVAILABLE = f"{PREFIX}store_unavailable"
"""503: a store does not answer at the moment; try again."""

STARTING = f"{PREFIX}starting"
"""503: the service has not finished starting; try again."""


def kind_of(problem_type: str) -> str:
    """The short name at the end of a problem's `type`, such as `store_unavailable`."""
    return problem_type.rsplit(":", 1)[-1]
