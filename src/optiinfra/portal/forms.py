"""What people enter into forms: as bodies of the API, and what is wrong with it in words that they can read."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Form
from pydantic import ValidationError

from optiinfra.kit.problems import Problem
from optiinfra.portal.views import humanize

_IN_FORM = {404, 409, 422, 429}
_ISSUED_BEFORE = (
    "This form was sent before. What it created is in the list, and its secret was shown once: delete it, and create"
    " another one."
)
FormId = Annotated[str, Form(alias="form", pattern="^([0-9a-f]{32})?$")]
"""The id of a form that creates a secret, its idempotency key: a page that is reloaded does not create another one."""
_LABELS = {"email": "E-mail address", "expires_in_days": "Days until it expires", "token": "Invitation code"}


@contextmanager
def entered() -> Iterator[None]:
    """Turn the refusal of a body by its own rules into a `Problem` that names the first field, and never its value."""
    try:
        yield
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False)[0]
        raise Problem(422, "invalid", _describe(first["loc"][-1], first["type"], first.get("ctx", {}))) from None


def new_form_id() -> str:
    """The id of a form that is shown."""
    return secrets.token_hex(16)


def refusal(problem: Problem | None) -> str | None:
    """What to show with the form. Raises the problem if it is not about what was entered: it gets a page of its own."""
    if problem is None:
        return None
    if problem.status not in _IN_FORM:
        raise problem
    return _ISSUED_BEFORE if problem.kind == "already_issued" else sentence(problem.detail)


def new_password(password: str, repeated: str) -> str:
    """A new password. `Problem` if it was not repeated correctly: a slip would lock its owner out."""
    if password != repeated:
        raise Problem(422, "invalid", "The two new passwords are not the same.")
    return password


def sentence(text: str) -> str:
    """The detail of a problem as a sentence."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _describe(field: str, kind: str, limits: dict[str, Any]) -> str:
    label = _LABELS.get(field) or humanize(field)
    if kind == "string_too_short" and limits["min_length"] == 1:
        return f"{label} is missing."
    if kind == "string_too_short":
        return f"{label} needs at least {limits['min_length']} characters."
    if kind == "string_too_long":
        return f"{label} may have at most {limits['max_length']} characters."
    return f"{label} is not valid."
