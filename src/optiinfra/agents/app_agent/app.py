"""The application agent as a service."""

from optiinfra.agents.app_agent.validation import judge, validate
from optiinfra.agents.base.agent import AgentKind
from optiinfra.agents.base.app import run
from optiinfra.agents.base.settings import AgentSettings
from optiinfra.kit.settings import load

KIND = AgentKind("application", "application-agent", {"validate": validate, "judge": judge})


class Settings(AgentSettings):
    """The agent's port."""

    application_agent_port: int = 8014


def main() -> None:
    """Serve the application agent."""
    settings = load(Settings)
    run(KIND, settings, settings.application_agent_port)
