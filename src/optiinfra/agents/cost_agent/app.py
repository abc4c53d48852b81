"""The cost agent as a service."""

from datetime import timedelta
from functools import partial

from pydantic import Field

from optiinfra.agents.base.agent import AgentKind
from optiinfra.agents.base.app import run
from optiinfra.agents.base.settings import AgentSettings
from optiinfra.agents.cost_agent import idle_shutdown, spot_migration
from optiinfra.agents.cost_agent.analysis import analyze
from optiinfra.kit.settings import load


class Settings(AgentSettings):
    """The agent's port, and how long an instance must have been idle before its shutdown is recommended."""

    cost_agent_port: int = 8011
    idle_grace_seconds: float = Field(default=24 * 3600.0, gt=0, le=365 * 24 * 3600.0)


def kind(settings: Settings) -> AgentKind:
    """The cost agent with the rules of all its recommendation types."""
    grace = timedelta(seconds=settings.idle_grace_seconds)
    rules = (spot_migration.find, partial(idle_shutdown.find, grace=grace))
    return AgentKind("cost", "cost-agent", {"analyze": partial(analyze, rules=rules)}, needs_outcomes=True)


def main() -> None:
    """Serve the cost agent."""
    settings = load(Settings)
    run(kind(settings), settings, settings.cost_agent_port)
