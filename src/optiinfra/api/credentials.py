"""Credentials of a customer's programs: agent tokens and API keys. Only the response that issues one shows it."""

from typing import Literal

from pydantic import Field

from optiinfra.api.common import Body, Moment, Text, Wire

ApiKeyScope = Literal["read", "approve"]


class InstallCommand(Wire):
    """The command that starts the runtime. The token is shown only once."""

    install_command: str
    agent_token: str
    token_id: str
    expires_at: Moment


class AgentToken(Wire):
    """An agent token that is neither deleted nor expired. `last_used_at` is up to a minute old; None if never used."""

    token_id: str
    created_at: Moment
    expires_at: Moment
    last_used_at: Moment | None


class NewApiKey(Body):
    """An API key to issue: `read` sees what a viewer sees, `approve` may do what an approver may do."""

    name: Text
    scope: ApiKeyScope
    expires_in_days: int = Field(default=90, ge=1, le=365)


class ApiKey(Wire):
    """An API key that is neither deleted nor expired. `last_used_at` is up to a minute old; None if never used."""

    key_id: str
    name: str
    scope: ApiKeyScope
    created_at: Moment
    expires_at: Moment
    last_used_at: Moment | None


class IssuedApiKey(Wire):
    """A new API key. The key is shown only once."""

    api_key: str
    key_id: str
    name: str
    scope: ApiKeyScope
    expires_at: Moment
