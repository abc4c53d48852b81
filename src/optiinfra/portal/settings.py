"""What the portal is told by its environment."""

from pydantic import Field

from optiinfra.kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """Its port, where the platform is, and the key that session cookies are sealed with."""

    portal_port: int = 3001
    orchestrator_url: str
    portal_session_key: str = Field(min_length=32)
