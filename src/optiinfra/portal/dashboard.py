"""The figures of a customer's first page, and of its JSON."""

import asyncio

from optiinfra.api.agents import Agent
from optiinfra.api.common import Wire
from optiinfra.api.customers import Infrastructure
from optiinfra.api.recommendations import Optimization, Recommendation
from optiinfra.api.telemetry import MetricPoint
from optiinfra.domain import recommendation as rules
from optiinfra.domain import savings
from optiinfra.domain.optimization import FINAL
from optiinfra.domain.recommendation import AgentType, RecommendationStatus
from optiinfra.portal.platform import Platform


class Series(Wire):
    """What the charts are drawn from: the estate's points, oldest first."""

    monthly_cost: list[MetricPoint]
    p95_latency_ms: list[MetricPoint]
    quality_score: list[MetricPoint]


class Figures(Wire):
    """Dollars a month: spent, saved by what can be approved now, saved by what was carried out (measured)."""

    current_spend: float
    potential_savings: float
    realized_savings: float
    active_optimizations: list[Optimization]
    recommendations: list[Recommendation]
    agents: list[Agent]


class Dashboard(Figures):
    """The figures, and their past."""

    series: Series


class Overview(Wire):
    """The figures, and what the page shows beside them."""

    figures: Figures
    infrastructure: Infrastructure
    finished_optimizations: list[Optimization]


def refused(recommendation: Recommendation) -> bool:
    """Whether a validator objects, so that it cannot be approved."""
    return any(not validation.approved for validation in recommendation.validations)


def awaited(recommendation: Recommendation) -> list[AgentType]:
    """The validators that have not spoken yet; nothing is approved before they have."""
    return rules.pending_validators(recommendation.agent_type, {said.agent_type for said in recommendation.validations})


def approvable(recommendation: Recommendation) -> bool:
    """Whether it waits for nobody but the customer."""
    return (
        recommendation.status == RecommendationStatus.PENDING
        and not refused(recommendation)
        and not awaited(recommendation)
    )


async def overview(platform: Platform, token: str, customer_id: str) -> Overview:
    """Everything of the first page, asked for side by side."""
    infrastructure, recommendations, optimizations, agents = await asyncio.gather(
        platform.infrastructure(token, customer_id),
        platform.recommendations(token, customer_id),
        platform.optimizations(token, customer_id),
        platform.agents(token),
    )
    figures = Figures(
        current_spend=savings.total(instance.monthly_cost for instance in infrastructure.instances),
        potential_savings=savings.total(one.estimated_savings for one in recommendations if approvable(one)),
        realized_savings=savings.total(
            one.result.actual_savings or 0.0 for one in optimizations if one.result and one.result.success
        ),
        active_optimizations=[one for one in optimizations if one.status not in FINAL],
        recommendations=recommendations,
        agents=agents,
    )
    finished = [one for one in optimizations if one.status in FINAL]
    return Overview(figures=figures, infrastructure=infrastructure, finished_optimizations=finished)


async def dashboard(platform: Platform, token: str, customer_id: str) -> Dashboard:
    """The figures with their series, which are long: a page that draws none does without."""
    data, series = await asyncio.gather(overview(platform, token, customer_id), _series(platform, token, customer_id))
    return Dashboard(**dict(data.figures), series=series)


async def _series(platform: Platform, token: str, customer_id: str) -> Series:
    cost, latency, quality = await asyncio.gather(
        platform.metrics(token, customer_id, "monthly_cost"),
        platform.metrics(token, customer_id, "p95_latency_ms"),
        platform.metrics(token, customer_id, "quality_score"),
    )
    return Series(monthly_cost=cost, p95_latency_ms=latency, quality_score=quality)
