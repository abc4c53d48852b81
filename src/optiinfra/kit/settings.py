"""Settings, read from `OPTIINFRA_*` environment variables only."""

import re
import sys
from typing import Annotated, Self, TypeVar

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

_PREFIX = "OPTIINFRA_"
_LENGTH, _DIFFERENT = 32, 8
"""Characters of a secret; different ones among them."""
_PLACEHOLDER = re.compile(r"change.?me|replace.?me|example|default|placeholder|your.?(secret|key|token)", re.IGNORECASE)


class _OwnSecret:
    """Marks a field whose value must be a random secret."""


OwnSecret = Annotated[str, Field(repr=False), _OwnSecret()]
"""A secret that the operator generates, such as by `openssl rand -hex 24`; no two of a service may be equal."""
OwnSecrets = Annotated[tuple[str, ...], Field(repr=False), _OwnSecret()]
"""Several such secrets, written as a JSON list."""
Concealed = Annotated[str, Field(repr=False)]
"""A credential that somebody else issues, or an address that contains one."""


class ServiceSettings(BaseSettings):
    """Settings of every service. Subclasses add their own; a missing one fails the start and is named."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, hide_input_in_errors=True)

    host: str = "127.0.0.1"
    trusted_proxies: str = ""
    """Addresses or networks of proxies before the service, separated by commas."""
    version: str = "unknown"
    start_deadline_seconds: float = 60.0
    """How long a starting service waits for its dependencies."""

    @model_validator(mode="after")
    def _check_secrets(self) -> Self:
        secrets = [
            (variable(name), secret)
            for name, field in type(self).model_fields.items()
            if any(isinstance(mark, _OwnSecret) for mark in field.metadata)
            for secret in _listed(getattr(self, name))
        ]
        refused = [f"{name} {reason}" for name, secret in secrets if (reason := _refusal(secret)) is not None]
        for position, (name, secret) in enumerate(secrets):
            equal = [other for other, value in secrets[:position] if value == secret]
            refused += [f"{name} equals {other}: each secret must be different" for other in equal]
        if refused:
            raise ValueError("; ".join(refused))
        return self


S = TypeVar("S", bound=ServiceSettings)


def load(kind: type[S]) -> S:
    """The settings of a starting service. Exits with a message that names each wrong variable, without its value."""
    try:
        return kind()
    except SettingsError as error:
        problems = [str(error)]
    except ValidationError as error:
        problems = [
            ": ".join([*(variable(f"{name}") for name in one["loc"][:1]), one["msg"]])
            for one in error.errors(include_url=False, include_context=False, include_input=False)
        ]
    sys.exit("the service cannot start: " + "; ".join(problems))


def variable(field: str) -> str:
    """The environment variable of a field."""
    return f"{_PREFIX}{field.upper()}"


def _listed(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _refusal(secret: str) -> str | None:
    if not secret.isascii():
        return "has characters that are not ASCII"
    if len(secret) < _LENGTH:
        return f"has fewer than {_LENGTH} characters"
    if len(set(secret)) < _DIFFERENT or _PLACEHOLDER.search(secret):
        return "is not random: generate one, such as by `openssl rand -hex 24`"
    return None
