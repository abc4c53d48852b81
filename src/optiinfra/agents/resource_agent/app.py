"""The resource agent as a service."""

from optiinfra.agents.base.agent import AgentKind
from optiinfra.agents.base.app import run
from optiinfra.agents.base.settings import AgentSettings
from optiinfra.agents.resource_agent.analysis import analyze
from optiinfra.kit.settings import load

KIND = AgentKind("resource", "resource-agent", {"analyze": analyze})


class Settings(AgentSettings):
    """The agent's port."""

    resource_agent_port: int = 8013


def main() -> None:
    """Serve the resource agent."""
    settings = load(Settings)
    run(KIND, settings, settings.resource_agent_port)
