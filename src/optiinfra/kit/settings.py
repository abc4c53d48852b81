"""Settings, read from `OPTIINFRA_*` environment variables only."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """Settings of every service. Subclasses add their own; a missing one fails the start and is named."""

    model_config = SettingsConfigDict(env_prefix="OPTIINFRA_", frozen=True)

    host: str = "127.0.0.1"
    trusted_proxies: str = ""
    """Addresses or networks of proxies before the service, separated by commas."""
    version: str = "unknown"
    start_deadline_seconds: float = 60.0
    """How long a starting service waits for its dependencies."""
