"""Settings of the portal."""

from pydantic import Field

from optiinfra.kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """The port, the orchestrator's address, and the key that encrypts session cookies."""

    portal_port: int = 3001
    orchestrator_url: str
    portal_session_key: str = Field(min_length=32)
