"""Settings of the portal."""

from optiinfra.kit.settings import OwnSecret, OwnSecrets, ServiceSettings


class Settings(ServiceSettings):
    """The port, the orchestrator's address, the key that encrypts session cookies, and what identifies the portal.

    Previous keys encrypt no more; a JSON list. A cookie of one stays valid while it is listed.
    """

    portal_port: int = 3001
    orchestrator_url: str
    portal_session_key: OwnSecret
    previous_portal_session_keys: OwnSecrets = ()
    portal_secret: OwnSecret
