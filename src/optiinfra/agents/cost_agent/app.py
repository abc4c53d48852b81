"""The cost agent as a service."""

from optiinfra.agents.base.agent import AgentKind
from optiinfra.agents.base.app import run
from optiinfra.agents.base.settings import AgentSettings
from optiinfra.agents.cost_agent.analysis import analyze

KIND = AgentKind("cost", "cost-agent", {"analyze": analyze}, remembers=True)


class Settings(AgentSettings):
    """Its own port."""

    cost_agent_port: int = 8011


def main() -> None:
    """Serve the cost agent."""
    settings = Settings()
    run(KIND, settings, settings.cost_agent_port)
