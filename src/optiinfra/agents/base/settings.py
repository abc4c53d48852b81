"""What an agent is told by its environment."""

from optiinfra.kit.settings import ServiceSettings


class AgentSettings(ServiceSettings):
    """Each agent adds the port it listens on. Stores are read with credentials that can do nothing else."""

    orchestrator_url: str
    enrolment_secret: str
    clickhouse_url: str
    clickhouse_user: str
    clickhouse_password: str
    clickhouse_database: str = "optiinfra"
    qdrant_url: str
    qdrant_api_key: str
    qdrant_collection: str = "outcomes"
    agent_pool: str = "default"
