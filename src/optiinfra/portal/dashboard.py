"""The figures of the dashboard page, and of the dashboard as JSON."""

import asyncio

from optiinfra.api import calls
from optiinfra.api.agents import Agent
from optiinfra.api.common import Wire
from optiinfra.api.customers import Infrastructure
from optiinfra.api.recommendations import Optimization, Recommendation
from optiinfra.api.telemetry import MetricPoint
from optiinfra.domain import recommendation as rules
from optiinfra.domain import savings
from optiinfra.domain.optimization import FINAL, OptimizationStatus
from optiinfra.domain.recommendation import ADVICE_ONLY, AgentType, RecommendationStatus
from optiinfra.portal.platform import Platform

_COUNTED = 1000
"""How many of the newest recommendations and optimizations are shown and counted: the most that the API lists."""


class Series(Wire):
    """The data of the charts: points of the whole infrastructure, oldest first."""

    monthly_cost: list[MetricPoint]
    p95_latency_ms: list[MetricPoint]
    quality_score: list[MetricPoint]


class Figures(Wire):
    """Dollars per month: spend, savings of what can be approved now, measured savings of completed optimizations.

    The spend leaves out the `unpriced_instances`.
    """

    current_spend: float
    unpriced_instances: int
    potential_savings: float
    realized_savings: float
    active_optimizations: list[Optimization]
    recommendations: list[Recommendation]
    agents: list[Agent]


class Dashboard(Figures):
    """The figures and their history."""

    series: Series


class Overview(Wire):
    """The figures, and what else the page shows."""

    figures: Figures
    infrastructure: Infrastructure
    finished_optimizations: list[Optimization]


def refused(recommendation: Recommendation) -> bool:
    """Whether a validator refused it, so that it cannot be approved."""
    return any(not validation.approved for validation in recommendation.validations)


def missing_validators(recommendation: Recommendation) -> list[AgentType]:
    """The validators that have not answered yet; until then it cannot be approved."""
    return rules.pending_validators(recommendation.agent_type, {done.agent_type for done in recommendation.validations})


def approvable(recommendation: Recommendation) -> bool:
    """Whether the customer can approve it now."""
    return (
        recommendation.status == RecommendationStatus.PENDING
        and recommendation.type not in ADVICE_ONLY
        and not refused(recommendation)
        and not missing_validators(recommendation)
    )


def _realized(optimization: Optimization) -> float:
    """The measured savings that last: none of an optimization that is being rolled back, or was not a success."""
    result = optimization.result
    if result is None or not result.success or optimization.status != OptimizationStatus.COMPLETED:
        return 0.0
    return result.actual_savings or 0.0


async def overview(platform: Platform, token: str, customer_id: str) -> Overview:
    """All data of the dashboard page, requested concurrently."""
    infrastructure, recommendations, optimizations, agents = await asyncio.gather(
        platform.send(calls.infrastructure(customer_id), token),
        platform.send(calls.recommendations(customer_id, _COUNTED), token),
        platform.send(calls.optimizations(customer_id, _COUNTED), token),
        platform.send(calls.agents(), token),
    )
    figures = Figures(
        current_spend=savings.total(instance.monthly_cost for instance in infrastructure.instances),
        unpriced_instances=infrastructure.unpriced_instances,
        potential_savings=savings.total(one.estimated_savings for one in recommendations if approvable(one)),
        realized_savings=savings.total(_realized(one) for one in optimizations),
        active_optimizations=[one for one in optimizations if one.status not in FINAL],
        recommendations=recommendations,
        agents=agents,
    )
    finished = [one for one in optimizations if one.status in FINAL]
    return Overview(figures=figures, infrastructure=infrastructure, finished_optimizations=finished)


async def dashboard(platform: Platform, token: str, customer_id: str) -> Dashboard:
    """The figures with their series, which are long, and which the page does not need."""
    data, series = await asyncio.gather(overview(platform, token, customer_id), _series(platform, token, customer_id))
    return Dashboard(**dict(data.figures), series=series)


async def _series(platform: Platform, token: str, customer_id: str) -> Series:
    cost, latency, quality = await asyncio.gather(
        platform.send(calls.metrics(customer_id, "monthly_cost"), token),
        platform.send(calls.metrics(customer_id, "p95_latency_ms"), token),
        platform.send(calls.metrics(customer_id, "quality_score"), token),
    )
    return Series(monthly_cost=cost, p95_latency_ms=latency, quality_score=quality)
