"""Settings of the orchestrator."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from limits import RateLimitItem, parse
from pydantic import AfterValidator, PlainValidator

from optiinfra.kit.settings import Concealed, OwnSecret, OwnSecrets, ServiceSettings


def _parsed(limit: str | RateLimitItem) -> RateLimitItem:
    return limit if isinstance(limit, RateLimitItem) else parse(limit)  # defaults are validated, too


RateLimit = Annotated[RateLimitItem, PlainValidator(_parsed)]
"""Written as `10/minute`."""


def networks(text: str) -> list[IPv4Network | IPv6Network]:
    """Networks from a text that separates them by commas; ValueError for anything else."""
    return [ip_network(each.strip()) for each in text.split(",")]


def _networks(text: str) -> str:
    networks(text)
    return text


Networks = Annotated[str, AfterValidator(_networks)]


class Settings(ServiceSettings):
    """Addresses, secrets and deadlines (seconds)."""

    orchestrator_port: int = 8001
    orchestrator_url: str = "http://127.0.0.1:8001"
    postgresql_url: Concealed
    clickhouse_url: str
    clickhouse_user: str
    clickhouse_password: OwnSecret
    clickhouse_database: str = "optiinfra"
    redis_url: Concealed
    redis_prefix: str = "optiinfra"
    qdrant_url: str
    qdrant_api_key: OwnSecret
    qdrant_collection: str = "outcomes"
    aws_endpoint_url: str
    aws_principal_arn: str
    """The IAM identity that assumes customers' roles: their trust policies name it."""
    aws_access_key_id: str = "test"
    aws_secret_access_key: Concealed = "test"  # noqa: S105  the mock cloud asks for some; a real one is set from outside
    token_signing_key: OwnSecret
    previous_token_signing_keys: OwnSecrets = ()
    """Keys that sign no more; a JSON list. A token of one stays valid until it expires."""
    task_signing_key: OwnSecret
    """Signs requests to agents."""
    enrolment_secret: OwnSecret
    """Only registers agents."""
    agent_networks: Networks = "127.0.0.0/8,::1/128"
    """Where agents may be: networks, separated by commas."""
    admin_token: OwnSecret

    audit_key: OwnSecret
    """Authenticates the entries of the audit log."""
    portal_secret: OwnSecret
    """With it the portal forwards the addresses of its users."""

    rate_limit_sign_in: RateLimit = parse("10/minute")
    """For each account and address."""
    rate_limit_sign_up: RateLimit = parse("60/minute")
    """For each address."""
    rate_limit_api: RateLimit = parse("100/second")
    """For all users of a customer."""
    rate_limit_samples: RateLimit = parse("200000/10 second")
    """Samples and latency counts of a customer's runtimes."""
    rate_limit_audited_refusals: RateLimit = parse("60/minute")
    """How many refused requests of an address the audit log records; metrics count all."""
    rate_limit_lockout_failures: int = 5
    """After so many failed attempts to sign in, the account is locked for the address, each time twice as long."""
    rate_limit_lockout_seconds: float = 30.0
    rate_limit_longest_lockout_seconds: float = 3600.0

    quota_analyses: int = 8
    """How many analyses of a customer may be in progress at once."""
    quota_onboardings: int = 5
    """How many of a customer's accounts may be waiting for their discovery at once."""
    quota_streams: int = 50
    """How many event streams of a customer one process serves at once."""

    executor_id: str = "orchestrator"
    access_token_seconds: int = 900
    refresh_token_seconds: int = 14 * 24 * 3600
    session_seconds: int = 30 * 24 * 3600
    """Absolute lifetime of a session, however often its tokens are refreshed."""
    invitation_seconds: int = 7 * 24 * 3600
    agent_token_seconds: int = 365 * 24 * 3600
    recommendation_ttl_seconds: int = 7 * 24 * 3600
    heartbeat_seconds: float = 2.0
    agent_task_seconds: float = 30.0
    agent_wait_seconds: float = 20.0
    agent_pool: str = "default"
    """Tasks go to agents that registered with this pool."""
    recovery_seconds: float = 5.0
    """How often unfinished work is recovered."""
    inventory_seconds: float = 300.0
    """How old the stored listing of a cloud account gets before it is listed again."""
    command_seconds: float = 300.0
    """How long a runtime may take for a command: a large model loads for minutes, golden prompts run as long."""
    command_redelivery_seconds: float = 30.0
    stage_deadline_seconds: float = 600.0
    optimization_deadline_seconds: float = 3600.0
    rollback_retry_seconds: float = 900.0
    """How long the rollback of a step is retried while the cloud refuses it, for whatever reason.

    A rollback step may take up to the sum of `optimization_deadline_seconds` and this.
    """
    spot_watch_seconds: float = 5.0
    """How often a change that relies on spot instances checks for interruptions: the interval that EC2 recommends."""
    spot_unobserved_seconds: float = 60.0
    """How long that check may fail before the change does: the cloud gives a notice of two minutes."""
    idle_observation_seconds: float = 900.0
    """How long stopped instances are watched before termination, so that an owner who needs one can start it again."""
    idle_poll_seconds: float = 10.0
    """How often they are listed meanwhile."""
    measuring_window_seconds: float = 900.0
    """How far back the figures before a change are taken from."""
