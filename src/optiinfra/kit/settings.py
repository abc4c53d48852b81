"""Settings come from `OPTIINFRA_*` variables and from nowhere else."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """What every service is told. Subclasses add their own; a missing one fails at start, by name."""

    model_config = SettingsConfigDict(env_prefix="OPTIINFRA_", frozen=True)

    host: str = "127.0.0.1"
    version: str = "unknown"
    start_deadline_seconds: float = 60.0
    """How long a starting service waits for what it depends on."""
