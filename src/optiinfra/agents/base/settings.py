"""Settings that all agents share."""

from optiinfra.kit.settings import ServiceSettings


class AgentSettings(ServiceSettings):
    """Each agent adds its port. The store credentials allow reading only."""

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
