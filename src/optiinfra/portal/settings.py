"""Settings of the portal."""

from optiinfra.kit.settings import OwnSecret, ServiceSettings


class Settings(ServiceSettings):
    """The port, the orchestrator's address, the key that encrypts session cookies, and what identifies the portal."""

    portal_port: int = 3001
    orchestrator_url: str
    portal_session_key: OwnSecret
    portal_secret: OwnSecret
