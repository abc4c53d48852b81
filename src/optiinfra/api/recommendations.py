"""Analyses, recommendations, and optimizations, which execute recommendations."""

from typing import Any, Literal

from optiinfra.api.agents import Prediction, Validation
from optiinfra.api.common import Body, Moment, Text, Wire
from optiinfra.domain.analysis import AnalysisStatus
from optiinfra.domain.optimization import OptimizationStatus, StepStatus
from optiinfra.domain.recommendation import AgentType, RecommendationStatus, RecommendationType, RiskLevel


class Analyze(Body):
    """The agent that should analyze."""

    agent_type: AgentType


class AnalysisStarted(Wire):
    """Response to `Analyze`."""

    status: Literal["started"] = "started"
    analysis_id: str


class Analysis(Wire):
    """One analysis; `summary` explains what was found, and why if it is nothing."""

    id: str
    agent_type: AgentType
    status: AnalysisStatus
    recommendation_ids: list[str]
    summary: str | None
    error: str | None = None


class Recommendation(Wire):
    """One recommendation with the other agents' validations; savings in dollars per month."""

    id: str
    agent_type: AgentType
    type: RecommendationType
    title: str
    explanation: str
    risk_level: RiskLevel
    confidence: float
    estimated_savings: float
    predicted: Prediction
    affected_resources: list[str]
    parameters: dict[str, Any]
    validations: list[Validation]
    similar_outcomes: list[str]
    status: RecommendationStatus
    created_at: Moment
    expires_at: Moment


class Reject(Body):
    """Why the customer rejects the recommendation."""

    reason: Text


class Approved(Wire):
    """Response to an approval; repeated approvals get the same response."""

    status: Literal["approved"] = "approved"
    optimization_id: str


class Step(Wire):
    """One step of an optimization, or its rollback."""

    name: str
    status: StepStatus
    attempt: int
    started_at: Moment
    completed_at: Moment | None
    detail: dict[str, Any]


class Result(Wire):
    """Measured result for the affected resources: dollars per month, milliseconds, shares 0..1."""

    success: bool
    predicted_savings: float
    actual_savings: float | None = None
    cost_before: float | None = None
    cost_after: float | None = None
    reduction_percent: float | None = None
    p95_before: float | None = None
    p95_after: float | None = None
    quality_before: float | None = None
    quality_after: float | None = None
    quality_lower_bound: float | None = None
    requests_dropped: int | None = None
    original_state_restored: bool | None = None
    error: str | None = None


class Optimization(Wire):
    """The execution of a recommendation; `execution_steps` grows as steps start."""

    id: str
    recommendation_id: str
    type: RecommendationType
    status: OptimizationStatus
    started_at: Moment | None
    completed_at: Moment | None
    execution_steps: list[Step]
    rollback_steps: list[Step]
    result: Result | None
