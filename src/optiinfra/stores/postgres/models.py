"""Tables. Times are UTC, money US dollars; `*_hash` columns hold what a secret hashes to, never the secret."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    DateTime,
    Enum,
    ForeignKey,
    MetaData,
    String,
    UniqueConstraint,
    false,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column

from optiinfra.domain.analysis import AnalysisStatus
from optiinfra.domain.command import CommandStatus
from optiinfra.domain.inventory import CloudAccountStatus
from optiinfra.domain.optimization import OptimizationStatus, StepStatus
from optiinfra.domain.recommendation import (
    AgentType,
    InstanceState,
    Lifecycle,
    RecommendationStatus,
    RecommendationType,
)

Json = dict[str, Any]


class Base(DeclarativeBase):
    """Base of all tables, with constraint names that migrations can rely on."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        Json: JSONB,
        list[Json]: JSONB,
        list[str]: JSONB,
        list[float]: JSONB,
        dict[str, float]: JSONB,
        dict[str, str]: JSONB,
        # Plain text in the database, not an enum type of PostgreSQL's: a new value needs no migration.
        AgentType: String(),
        InstanceState: String(),
        Lifecycle: String(),
        RecommendationType: String(),
        StrEnum: Enum(StrEnum, native_enum=False, create_constraint=False, values_callable=list),
    }


def _owner() -> Mapped[str]:
    return mapped_column(ForeignKey("customers.id", ondelete="CASCADE"), index=True)


def _now() -> Mapped[datetime]:
    return mapped_column(server_default=func.now())


class Customer(Base):
    """A company. `last_event_seq` is the number of its newest event; it is increased under this row's lock.

    `external_id` is what the platform sends with each AssumeRole for this customer. It is random and never chosen by a
    caller: a role that requires it can be used for this customer only.
    """

    __tablename__ = "customers"

    id: Mapped[str] = mapped_column(primary_key=True)
    company_name: Mapped[str]
    plan: Mapped[str]
    preferences: Mapped[Json]
    external_id: Mapped[str] = mapped_column(unique=True, server_default=text("(gen_random_uuid())::text"))
    last_event_seq: Mapped[int] = mapped_column(BigInteger, server_default="0")
    created_at: Mapped[datetime] = _now()


class CustomerDeletion(Base):
    """A deletion in progress: the customer's row is gone, their data in other stores and their workflows may not be."""

    __tablename__ = "customer_deletions"

    customer_id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = _now()


class User(Base):
    """A person of a customer."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = _owner()
    email: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    role: Mapped[str]
    created_at: Mapped[datetime] = _now()


class Invitation(Base):
    """An address that an owner has invited. Its id becomes that of the user who accepts, when its row is deleted."""

    __tablename__ = "invitations"
    __table_args__ = (UniqueConstraint("customer_id", "email"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = _owner()
    email: Mapped[str]
    role: Mapped[str]
    token_hash: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = _now()
    expires_at: Mapped[datetime]


class UserSession(Base):
    """What a sign-in begins. `refreshed_at` is when tokens were issued last, `expires_at` the absolute lifetime."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = _now()
    refreshed_at: Mapped[datetime] = _now()
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class RefreshToken(Base):
    """One refresh token of a session; the use of a used one ends the session."""

    __tablename__ = "refresh_tokens"

    token_hash: Mapped[str] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), index=True)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class CloudAccount(Base):
    """A cloud account in one region, reached through a role. `account_id` is the cloud's own account number.

    `external_id` is the customer's.

    `as_of` is when it was onboarded last, or when the newest stored listing of it began: older listings are dropped.
    """

    __tablename__ = "cloud_accounts"
    __table_args__ = (UniqueConstraint("customer_id", "provider", "region", "role_arn"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = _owner()
    provider: Mapped[str]
    region: Mapped[str]
    role_arn: Mapped[str]
    account_id: Mapped[str | None]
    external_id: Mapped[str] = column_property(
        select(Customer.external_id).where(Customer.id == customer_id).scalar_subquery()
    )
    status: Mapped[CloudAccountStatus]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = _now()
    as_of: Mapped[datetime] = _now()


class ConnectedAccount(Base):
    """Whose a cloud account is: of the customer that entered it first, in whatever regions and by whatever roles."""

    __tablename__ = "connected_accounts"

    provider: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = _owner()


class Instance(Base):
    """A cloud instance as last seen; `idle_since` follows `orchestrator.inventory.idle`.

    `monthly_cost` is None while the instance runs without a known price.
    """

    __tablename__ = "instances"

    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id", ondelete="CASCADE"), primary_key=True)
    instance_id: Mapped[str] = mapped_column(primary_key=True)
    cloud_account_id: Mapped[str] = mapped_column(ForeignKey("cloud_accounts.id", ondelete="CASCADE"), index=True)
    provider: Mapped[str]
    region: Mapped[str]
    instance_type: Mapped[str]
    lifecycle: Mapped[Lifecycle]
    state: Mapped[InstanceState]
    monthly_cost: Mapped[float | None]
    seen_at: Mapped[datetime]
    idle_since: Mapped[datetime | None]


class Deployment(Base):
    """A deployment as its gateway last described it (`DiscoveredDeployment`); `gone_at` when it no longer does."""

    __tablename__ = "deployments"
    __table_args__ = (UniqueConstraint("customer_id", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = _owner()
    name: Mapped[str]
    described: Mapped[Json]
    seen_at: Mapped[datetime]
    gone_at: Mapped[datetime | None]


class _Credential:
    """Columns of the credentials of a customer's programs; `last_used_at` is up to a minute old."""

    id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = _owner()
    token_hash: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = _now()
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AgentToken(_Credential, Base):
    """A token with which a customer's runtime connects."""

    __tablename__ = "agent_tokens"


class ApiKey(_Credential, Base):
    """A key with which a customer's programs call the API."""

    __tablename__ = "api_keys"

    name: Mapped[str]
    scope: Mapped[str]


class Runtime(Base):
    """A connected runtime. Only the token that it connected with speaks for it."""

    __tablename__ = "runtimes"

    id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = _owner()
    token_id: Mapped[str | None] = mapped_column(ForeignKey("agent_tokens.id", ondelete="SET NULL"), index=True)
    hostname: Mapped[str]
    version: Mapped[str]
    connected_at: Mapped[datetime] = _now()
    last_seen_at: Mapped[datetime] = _now()


class TelemetryKey(Base):
    """An idempotency key under which a runtime's telemetry was stored, and the digest of that batch."""

    __tablename__ = "telemetry_keys"

    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class IdempotencyKey(Base):
    """A request that was carried out under an idempotency key: its answer, or the ids of what it issued secrets to.

    `customer_id` is None for callers that belong to no customer.
    """

    __tablename__ = "idempotency_keys"

    caller: Mapped[str] = mapped_column(primary_key=True)
    request: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str | None] = mapped_column(ForeignKey("customers.id", ondelete="CASCADE"), index=True)
    digest: Mapped[str]
    status: Mapped[int]
    answer: Mapped[str | None]
    issued: Mapped[dict[str, str] | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class Command(Base):
    """A command to a customer's runtime; delivered again until it is acknowledged or cancelled."""

    __tablename__ = "commands"
    __table_args__ = (UniqueConstraint("customer_id", "idempotency_key"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = _owner()
    idempotency_key: Mapped[str]
    kind: Mapped[str]
    payload: Mapped[Json]
    status: Mapped[CommandStatus]
    delivered_to: Mapped[str | None]
    delivered_at: Mapped[datetime | None]
    output: Mapped[Json | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = _now()
    completed_at: Mapped[datetime | None]


class Agent(Base):
    """A registered agent; Redis knows whether it is alive."""

    __tablename__ = "agents"

    id: Mapped[str] = mapped_column(primary_key=True)
    agent_type: Mapped[AgentType]
    pool: Mapped[str]
    version: Mapped[str]
    hostname: Mapped[str]
    base_url: Mapped[str]
    capabilities: Mapped[list[str]]
    secret_hash: Mapped[str] = mapped_column(unique=True)
    registered_at: Mapped[datetime] = _now()
    last_heartbeat_at: Mapped[datetime] = _now()
    deregistered_at: Mapped[datetime | None]
    current_tasks: Mapped[int] = mapped_column(server_default="0")
    load: Mapped[float] = mapped_column(server_default="0")
    draining: Mapped[bool] = mapped_column(server_default=false())


class Analysis(Base):
    """An analysis of a customer's estate by an agent."""

    __tablename__ = "analyses"

    id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = _owner()
    agent_type: Mapped[AgentType]
    status: Mapped[AnalysisStatus]
    summary: Mapped[str | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = _now()
    completed_at: Mapped[datetime | None]


class Recommendation(Base):
    """A recommendation: the agent's draft, and the other agents' validations of it.

    `deployment_id` is None when it is about instances that serve no deployment.
    """

    __tablename__ = "recommendations"

    id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = _owner()
    analysis_id: Mapped[str] = mapped_column(ForeignKey("analyses.id", ondelete="CASCADE"), index=True)
    deployment_id: Mapped[str | None] = mapped_column(ForeignKey("deployments.id", ondelete="CASCADE"), index=True)
    agent_type: Mapped[AgentType]
    status: Mapped[RecommendationStatus]
    draft: Mapped[Json]
    validations: Mapped[list[Json]]
    created_at: Mapped[datetime] = _now()
    expires_at: Mapped[datetime]


class Optimization(Base):
    """An optimization that executes a recommendation; its id is its workflow's id."""

    __tablename__ = "optimizations"

    id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = _owner()
    recommendation_id: Mapped[str] = mapped_column(ForeignKey("recommendations.id", ondelete="CASCADE"), unique=True)
    type: Mapped[RecommendationType]
    status: Mapped[OptimizationStatus]
    trace_id: Mapped[str]
    snapshot: Mapped[Json | None]
    result: Mapped[Json | None]
    rollback_reason: Mapped[str | None]
    created_at: Mapped[datetime] = _now()
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]


class OptimizationStep(Base):
    """One step of an optimization, or of its rollback."""

    __tablename__ = "optimization_steps"

    optimization_id: Mapped[str] = mapped_column(ForeignKey("optimizations.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    status: Mapped[StepStatus]
    attempt: Mapped[int]
    started_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    detail: Mapped[Json]


class Outcome(Base):
    """The measured outcome of an optimization, for later predictions; Qdrant holds a copy for similarity search."""

    __tablename__ = "outcomes"

    optimization_id: Mapped[str] = mapped_column(ForeignKey("optimizations.id", ondelete="CASCADE"), primary_key=True)
    customer_id: Mapped[str] = _owner()
    type: Mapped[RecommendationType]
    features: Mapped[list[float]]
    modelled: Mapped[dict[str, float]]
    measured: Mapped[dict[str, float]]
    created_at: Mapped[datetime] = _now()


class AuditEntry(Base):
    """An entry of the audit log (`orchestrator.audit`); `chain` is the customer's id, or empty for the platform's.

    The database refuses changes of entries. No foreign key: entries are replaced when their customer is deleted.
    """

    __tablename__ = "audit_log"

    chain: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    at: Mapped[datetime]
    actor_kind: Mapped[str]
    actor: Mapped[str]
    action: Mapped[str]
    target: Mapped[dict[str, str]]
    status: Mapped[int]
    address: Mapped[str]
    trace_id: Mapped[str]
    mac: Mapped[str]


class Event(Base):
    """An event of a customer; `seq` has no gaps."""

    __tablename__ = "events"

    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    event_type: Mapped[str]
    source: Mapped[str]
    agent_type: Mapped[str | None]
    payload: Mapped[Json]
    created_at: Mapped[datetime] = _now()
    optimization_id: Mapped[str | None]
    step: Mapped[str | None]
    status: Mapped[str | None]
    progress: Mapped[float | None]
