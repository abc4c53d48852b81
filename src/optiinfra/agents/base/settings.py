"""Settings that all agents share."""

from optiinfra.kit.settings import OwnSecret, ServiceSettings


class AgentSettings(ServiceSettings):
    """Each agent adds its port. The store credentials allow reading only."""

    orchestrator_url: str
    enrolment_secret: OwnSecret
    clickhouse_url: str
    clickhouse_user: str
    clickhouse_password: OwnSecret
    clickhouse_database: str = "optiinfra"
    qdrant_url: str
    qdrant_api_key: OwnSecret
    qdrant_collection: str = "outcomes"
    agent_pool: str = "default"
