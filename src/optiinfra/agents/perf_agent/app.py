"""The performance agent as a service."""

from optiinfra.agents.base.agent import AgentKind
from optiinfra.agents.base.app import run
from optiinfra.agents.base.settings import AgentSettings
from optiinfra.agents.perf_agent.validation import judge, validate
from optiinfra.kit.settings import load

KIND = AgentKind("performance", "performance-agent", {"validate": validate, "judge": judge})


class Settings(AgentSettings):
    """The agent's port."""

    performance_agent_port: int = 8012


def main() -> None:
    """Serve the performance agent."""
    settings = load(Settings)
    run(KIND, settings, settings.performance_agent_port)
