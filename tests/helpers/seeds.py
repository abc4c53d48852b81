"""Recommendations and optimizations in any state, written to PostgreSQL without what leads there."""

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from optiinfra.api.agents import Draft, Prediction
from optiinfra.domain.outcomes import DIMENSIONS
from optiinfra.domain.recommendation import validators_of
from tests.helpers.database import connect

NEVER_STARTED = 3600.0
"""Seconds in the future: recovery starts pending optimizations once they are some seconds old."""


class Seeds:
    """What a test writes for one customer; `seeded` removes it."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]], customer_id: str) -> None:
        self._connection, self._customer_id = connection, customer_id
        self._analysis_id = f"anal_{uuid.uuid4().hex[:24]}"
        connection.execute(
            "INSERT INTO analyses (id, customer_id, agent_type, status) VALUES (%s, %s, 'cost', 'completed')",
            (self._analysis_id, customer_id),
        )

    def recommendation(
        self,
        *resources: str,
        type: str = "idle_shutdown",  # noqa: A002
        agent: Any = "cost",
        savings: float = 100.0,
        status: str = "pending",
        verdicts: dict[str, bool] | None = None,
        deployment_id: str | None = None,
        expires_in: float = 3600.0,
        age: float = 0.0,
    ) -> str:
        """A recommendation about these resources; without `verdicts` every validator approved it."""
        recommendation_id = f"rec_{uuid.uuid4().hex[:24]}"
        given = dict.fromkeys(validators_of(agent), True) if verdicts is None else verdicts
        self._connection.execute(
            """INSERT INTO recommendations (id, customer_id, analysis_id, deployment_id, agent_type, status, draft,
                                            validations, expires_at, created_at)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, now() + make_interval(secs => %s),
                       now() - make_interval(secs => %s))""",
            (
                recommendation_id,
                self._customer_id,
                self._analysis_id,
                deployment_id,
                agent,
                status,
                _draft(type, resources, savings, deployment_id).model_dump_json(),
                json.dumps([{"agent_type": name, "approved": ok, "reason": "seeded"} for name, ok in given.items()]),
                expires_in,
                age,
            ),
        )
        return recommendation_id

    def status(self, recommendation_id: str) -> str:
        """The stored status of a recommendation."""
        query = "SELECT status FROM recommendations WHERE id = %s"
        found = self._connection.execute(query, (recommendation_id,)).fetchone()
        assert found is not None
        return str(found[0])

    def optimization(
        self, recommendation_id: str, status: str, *, success: bool | None = None, savings: float | None = None
    ) -> str:
        """An optimization that no workflow executes; it has a result unless `success` is None."""
        optimization_id = f"opt_{uuid.uuid4().hex[:24]}"
        result = {"success": success, "predicted_savings": 100.0, "actual_savings": savings}
        self._connection.execute(
            """INSERT INTO optimizations (id, customer_id, recommendation_id, type, status, trace_id, result,
                                          created_at)
               VALUES (%s, %s, %s, 'idle_shutdown', %s, 'seeded', %s, now() + make_interval(secs => %s))""",
            (
                optimization_id,
                self._customer_id,
                recommendation_id,
                status,
                None if success is None else json.dumps(result),
                NEVER_STARTED,
            ),
        )
        return optimization_id


@contextmanager
def seeded(environment: dict[str, Any], customer_id: str) -> Iterator[Seeds]:
    """Seeds of a customer, who can be deleted afterwards: nothing seeded is unfinished any more."""
    with connect(environment, autocommit=True) as connection:
        try:
            yield Seeds(connection, customer_id)
        finally:
            statement = "DELETE FROM optimizations WHERE customer_id = %s AND trace_id = 'seeded'"
            connection.execute(statement, (customer_id,))


def _draft(type: Any, resources: Sequence[str], savings: float, deployment_id: str | None) -> Draft:  # noqa: A002
    return Draft(
        type=type,
        title=f"Seeded {type}",
        explanation="seeded",
        risk_level="low",
        confidence=0.8,
        estimated_savings=savings,
        predicted=Prediction(monthly_cost=0.0, p95_latency_ms=None, quality_score=None),
        affected_resources=list(resources),
        deployment_id=deployment_id,
        parameters={
            "provider": "aws",
            "region": "us-east-1",
            "instance_ids": list(resources),
            "idle_since": "2026-01-01T00:00:00Z",
            "hourly_cost": 1.0,
        },
        modelled={"savings": savings},
        features=[1.0] * DIMENSIONS,
        similar_outcomes=[],
    )
