"""Past outcomes, written to the stores as a finished optimization writes them."""

import json
import math
from collections.abc import Mapping, Sequence
from operator import mul
from typing import Any

from qdrant_client import models

from optiinfra.api.agents import Draft, Prediction
from optiinfra.domain.recommendation import RecommendationType
from optiinfra.kit.ids import new_id
from optiinfra.stores.qdrant import point_id
from tests.helpers.stores import Stores

Figures = Mapping[str, float]

ROWS = """
    WITH analysis AS (
        INSERT INTO analyses (id, customer_id, agent_type, status)
        VALUES (%(analysis)s, %(customer)s, 'cost', 'completed')
    ), recommendation AS (
        INSERT INTO recommendations
            (id, customer_id, analysis_id, agent_type, status, draft, validations, expires_at)
        VALUES (%(recommendation)s, %(customer)s, %(analysis)s, 'cost', 'completed',
                %(draft)s, '[]', now())
    ), optimization AS (
        INSERT INTO optimizations (id, customer_id, recommendation_id, type, status, trace_id)
        VALUES (%(optimization)s, %(customer)s, %(recommendation)s, %(type)s, 'completed', '0')
    )
    INSERT INTO outcomes (optimization_id, customer_id, type, features, modelled, measured)
    VALUES (%(optimization)s, %(customer)s, %(type)s, %(features)s, %(modelled)s, %(measured)s)"""


def seed_outcome(
    stores: Stores,
    customer_id: str,
    change_type: RecommendationType,
    features: Sequence[float],
    modelled: Figures,
    measured: Figures,
) -> str:
    """An outcome of the customer in PostgreSQL and Qdrant; returns the id of its optimization."""
    optimization = new_id("opt")
    draft = Draft(
        type=change_type,
        title="t",
        explanation="e",
        risk_level="low",
        confidence=0.7,
        estimated_savings=1.0,
        predicted=Prediction(monthly_cost=1.0, p95_latency_ms=None, quality_score=None),
        affected_resources=[],
        deployment_id=None,
        parameters={},
        modelled=dict(modelled),
        features=list(features),
        similar_outcomes=[],
    )
    stores.sql_named(
        ROWS,
        customer=customer_id,
        type=change_type,
        analysis=new_id("anal"),
        recommendation=new_id("rec"),
        optimization=optimization,
        draft=draft.model_dump_json(),
        features=json.dumps(list(features)),
        modelled=json.dumps(modelled),
        measured=json.dumps(measured),
    )
    payload = {
        "customer_id": customer_id,
        "optimization_id": optimization,
        "type": change_type,
        "modelled": dict(modelled),
        "measured": dict(measured),
    }
    point = models.PointStruct(id=point_id(optimization), vector=list(features), payload=payload)
    stores.qdrant.upsert(stores.collection, [point], wait=True)
    return optimization


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """The similarity of two feature vectors."""
    return float(sum(map(mul, one, other))) / (math.hypot(*one) * math.hypot(*other))


def at_similarity(features: Sequence[float], similarity: float) -> list[float]:
    """A vector of that cosine similarity, different in the last type, which no agent recommends yet."""
    last_type = 9
    assert features[last_type] == 0.0
    changed = list(features)
    changed[last_type] = math.hypot(*features) * math.sqrt(1.0 / similarity**2 - 1.0)
    return changed


def points_of(stores: Stores, customer_id: str) -> list[Any]:
    """The customer's points in Qdrant, with their vectors."""
    belongs = models.FieldCondition(key="customer_id", match=models.MatchValue(value=customer_id))
    found, rest = stores.qdrant.scroll(
        stores.collection, models.Filter(must=[belongs]), limit=100, with_payload=True, with_vectors=True
    )
    assert rest is None, "there are more points than were read"
    return list(found)
