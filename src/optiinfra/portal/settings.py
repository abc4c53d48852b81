"""Settings of the portal."""

from pydantic import Field

from optiinfra.kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """The port, the orchestrator's address, the key that encrypts session cookies, and what identifies the portal."""

    portal_port: int = 3001
    orchestrator_url: str
    portal_session_key: str = Field(min_length=32)
    portal_secret: str = Field(min_length=32)
