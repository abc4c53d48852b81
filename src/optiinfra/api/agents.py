"""Agents: how they register, and the tasks that the orchestrator hands them (`POST {base_url}/tasks`)."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, HttpUrl

from optiinfra.api.common import Body, Moment, Text, Wire
from optiinfra.api.customers import Infrastructure, Preferences
from optiinfra.api.runtimes import GoldenAnswer
from optiinfra.domain.recommendation import AgentType, RecommendationType, RiskLevel
from optiinfra.domain.verdict import Decision


def _reachable(url: str) -> str:
    HttpUrl(url)  # raises for a host or port that there cannot be
    return url


Origin = Annotated[str, Field(max_length=200, pattern=r"^https?://[^@/?#]+$"), AfterValidator(_reachable)]
"""Scheme, host and port of a service, without the slash."""


class Register(Body):
    """A starting agent, with the enrolment secret as bearer."""

    agent_type: AgentType
    version: Text
    capabilities: list[Text] = Field(max_length=100)
    hostname: Text
    base_url: Origin
    pool: Text = "default"


class Registered(Wire):
    """Answer to it. Later calls carry the secret as bearer; a heartbeat is due every `heartbeat_seconds`."""

    registered: Literal[True] = True
    agent_id: str
    agent_secret: str
    heartbeat_seconds: float


class Heartbeat(Body):
    """An agent's sign of life; `load` 0..1."""

    status: Literal["active", "draining"] = "active"
    current_tasks: int = Field(ge=0, le=1_000_000)
    load: float = Field(ge=0.0, allow_inf_nan=False)


class HeartbeatAccepted(Wire):
    """Answer to it."""

    ok: Literal[True] = True


class Agent(Wire):
    """One registered agent."""

    agent_id: str
    agent_type: AgentType
    status: Literal["active", "unhealthy", "deregistered"]
    version: str
    hostname: str
    base_url: str
    pool: str
    capabilities: list[str]
    last_heartbeat_at: Moment
    current_tasks: int
    load: float
    draining: bool = False


class Prediction(Wire):
    """Figures of the affected resources: dollars a month, milliseconds, share of golden prompts right."""

    monthly_cost: float
    p95_latency_ms: float | None
    quality_score: float | None


class Draft(Wire):
    """A recommendation as an agent makes it, before anybody else has seen it.

    `modelled` are the figures of the agent's model that an outcome can be held against, before past ones corrected
    them (`savings` in the price of what runs, `p95_latency_ms`), `features` the change as a vector; both are kept with
    the outcome. `deployment_id` is None for a change of instances that serve no deployment; `parameters` are one of
    `api.parameters`, by type.
    """

    type: RecommendationType
    title: str
    explanation: str
    risk_level: RiskLevel
    confidence: float = Field(ge=0.0, le=1.0)
    estimated_savings: float
    predicted: Prediction
    affected_resources: list[str]
    deployment_id: str | None
    parameters: dict[str, Any]
    modelled: dict[str, float]
    features: list[float]
    similar_outcomes: list[str]


class AnalyzeTask(Body):
    """Look for something to recommend.

    `spot_quotes` are the cloud's own spot prices, dollars an hour by `region/instance_type`, plausible or not.
    """

    kind: Literal["analyze"] = "analyze"
    task_id: str
    customer_id: str
    preferences: Preferences
    infrastructure: Infrastructure
    spot_quotes: dict[str, float] = Field(default_factory=dict)


class AnalyzeAnswer(Wire):
    """What was found; `summary` says why when it is nothing."""

    drafts: list[Draft]
    summary: str


class ValidateTask(Body):
    """Judge another agent's recommendation; the application agent gets fresh answers of the deployment as it is."""

    kind: Literal["validate"] = "validate"
    task_id: str
    customer_id: str
    draft: Draft
    infrastructure: Infrastructure
    golden_answers: list[GoldenAnswer] = Field(default_factory=list)


class Validation(Wire):
    """The judgement. `baseline_quality` is what the application agent measured before the change."""

    agent_type: AgentType
    approved: bool
    reason: str
    baseline_established: bool | None = None
    baseline_quality: float | None = None


class JudgeTask(Body):
    """Judge a canary stage from what was measured on `replica_ids` since `since`; `look` counts from 1.

    `golden_answers` are all that the stage has given, `baseline_answers` those to the same prompts before the change.
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
    """One look at the stage (`domain.verdict.Verdict` on the wire)."""

    agent_type: AgentType
    decision: Decision
    reason: str
    observations: int
    estimate: float | None = None
    lower_bound: float | None = None
    upper_bound: float | None = None


Task = Annotated[AnalyzeTask | ValidateTask | JudgeTask, Field(discriminator="kind")]
TaskAnswer = AnalyzeAnswer | Validation | JudgeAnswer
