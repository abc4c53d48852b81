"""Registration of agents, and the tasks that the orchestrator sends them (`POST {base_url}/tasks`)."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, HttpUrl

from optiinfra.api.common import Body, Finite, FreeJson, Identifier, Moment, Prose, Text, Wire
from optiinfra.api.customers import Infrastructure, Preferences
from optiinfra.api.runtimes import GoldenAnswer
from optiinfra.domain.recommendation import AgentType, RecommendationType, RiskLevel
from optiinfra.domain.verdict import Decision


def _canonical(url: str) -> str:
    return str(HttpUrl(url)).rstrip("/")  # raises for an impossible host or port


Origin = Annotated[
    str,
    Field(max_length=200, pattern=r"^https?://[^@/?#\\]+$", examples=["http://127.0.0.1:9"]),
    AfterValidator(_canonical),
]
"""Scheme, host and port of a service, always written the same way, without a trailing slash."""

LONGEST_TITLE = 300
MOST_RESOURCES = 5_000
MOST_DRAFTS = 10_000
"""Recommendations of one analysis: several for each of the most deployments that a customer may have."""

FULL_LOAD_TASKS = 8
"""Tasks in progress at which an agent reports a load of 1."""


class Register(Body):
    """An agent that registers, with the enrolment secret as bearer token."""

    agent_type: AgentType
    version: Text
    capabilities: list[Text] = Field(max_length=100)
    hostname: Text
    base_url: Origin
    pool: Text = "default"


class Registered(Wire):
    """Response to `Register`. Later calls carry `agent_secret` as bearer token. Heartbeats are due that often.

    Tasks are signed for `agent_id`, see `kit.task_requests`; `task_key` is the public key.
    """

    registered: Literal[True] = True
    agent_id: str
    agent_secret: str
    heartbeat_seconds: float
    task_key: str


class Heartbeat(Body):
    """A heartbeat: tasks in progress, and `load` 0..1."""

    status: Literal["active", "draining"] = "active"
    current_tasks: int = Field(ge=0, le=1_000_000)
    load: float = Field(ge=0.0, le=1e6)


class HeartbeatAccepted(Wire):
    """Response to `Heartbeat`; with the public key again, which may have been replaced."""

    ok: Literal[True] = True
    task_key: str


class Agent(Wire):
    """One registered agent. Customers do not see its host and address."""

    agent_id: str
    agent_type: AgentType
    status: Literal["active", "unhealthy", "deregistered"]
    version: str
    hostname: str | None
    base_url: str | None
    pool: str
    capabilities: list[str]
    last_heartbeat_at: Moment
    current_tasks: int
    load: float
    draining: bool = False


class Prediction(Wire):
    """Predicted figures of the affected resources: dollars per month, milliseconds, share of correct answers."""

    monthly_cost: Finite = Field(ge=0.0)
    p95_latency_ms: Finite | None = Field(ge=0.0)
    quality_score: Finite | None = Field(ge=0.0, le=1.0)


class Draft(Wire):
    """A recommendation as an agent proposes it, before validation.

    `modelled` are the figures of the agent's model before correction by past outcomes (`savings`, `p95_latency_ms`);
    `features` is the change as a vector; both are stored with the outcome. `deployment_id` is None for a change of
    instances that serve no deployment. The shape of `parameters` depends on the type (see `api.parameters`).
    """

    type: RecommendationType
    title: Annotated[Prose, Field(max_length=LONGEST_TITLE)]
    explanation: Prose
    risk_level: RiskLevel
    confidence: Finite = Field(ge=0.0, le=1.0)
    estimated_savings: Finite
    predicted: Prediction
    affected_resources: list[Identifier] = Field(max_length=MOST_RESOURCES)
    deployment_id: Identifier | None
    parameters: FreeJson
    modelled: dict[Identifier, Finite] = Field(max_length=100)
    features: list[Finite] = Field(max_length=100)
    similar_outcomes: list[Identifier] = Field(max_length=100)


class AnalyzeTask(Body):
    """Look for recommendations.

    `spot_quotes` are the cloud's spot prices in dollars per hour by `region/instance_type`; they may be implausible.
    """

    kind: Literal["analyze"] = "analyze"
    task_id: str
    customer_id: str
    preferences: Preferences
    infrastructure: Infrastructure
    spot_quotes: dict[str, float] = Field(default_factory=dict)


class AnalyzeAnswer(Wire):
    """The recommendations found; `summary` explains them, and why others were not made."""

    drafts: list[Draft] = Field(max_length=MOST_DRAFTS, fail_fast=True)
    summary: Prose


class ValidateTask(Body):
    """Validate another agent's recommendation. The application agent gets recent golden answers of the deployment."""

    kind: Literal["validate"] = "validate"
    task_id: str
    customer_id: str
    draft: Draft
    infrastructure: Infrastructure
    golden_answers: list[GoldenAnswer] = Field(default_factory=list)


class Validation(Wire):
    """The result of a validation. `baseline_quality` is what the application agent measured before the change."""

    agent_type: AgentType
    approved: bool
    reason: Prose
    baseline_established: bool | None = None
    baseline_quality: Finite | None = Field(default=None, ge=0.0, le=1.0)


class JudgeTask(Body):
    """Judge a canary stage by measurements of `replica_ids` since `since`; `look` numbers the interim analyses from 1.

    `golden_answers` are all answers of the stage so far, `baseline_answers` those to the same prompts before it.
    """

    kind: Literal["judge"] = "judge"
    task_id: str
    customer_id: str
    deployment_id: str
    stage: str
    since: Moment
    replica_ids: list[str]
    slo_p95_latency_ms: float
    slo_quality: float
    baseline_quality: float
    look: int = Field(ge=1)
    golden_answers: list[GoldenAnswer] = Field(default_factory=list)
    baseline_answers: list[GoldenAnswer] = Field(default_factory=list)


class JudgeAnswer(Wire):
    """One judgement of a stage (see `domain.verdict.Verdict`)."""

    agent_type: AgentType
    decision: Decision
    reason: Prose
    observations: int = Field(ge=0, le=2**62)
    estimate: Finite | None = None
    lower_bound: Finite | None = None
    upper_bound: Finite | None = None


Task = Annotated[AnalyzeTask | ValidateTask | JudgeTask, Field(discriminator="kind")]
TaskAnswer = AnalyzeAnswer | Validation | JudgeAnswer
