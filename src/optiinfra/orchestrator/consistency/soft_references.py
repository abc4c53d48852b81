"""References within PostgreSQL that no foreign key guards. Each is one plain SELECT: one snapshot, no locks.

DBOS keeps its tables in the schema `dbos` of the same database.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.consistency import Dangling
from optiinfra.domain.optimization import FINAL
from optiinfra.orchestrator.durable import IN_PROGRESS

_VALUES = {"final": sorted(FINAL), "in_progress": list(IN_PROGRESS), "recovery_seconds": 60}
"""A row that is younger than `recovery_seconds` may still wait for recovery to start its workflow."""

# Each selects, for every reference of its kind: the referring row's id, what it refers to, and whether that exists.
SOFT_REFERENCES = {
    "events": """
        SELECT it.id, 'optimization ' || it.optimization_id, o.id IS NOT NULL
          FROM events AS it
          LEFT JOIN optimizations AS o ON o.id = it.optimization_id AND o.customer_id = it.customer_id
         WHERE it.optimization_id IS NOT NULL""",
    "similar_outcomes": """
        SELECT it.id, 'outcome of ' || past, o.optimization_id IS NOT NULL
          FROM recommendations AS it
         CROSS JOIN jsonb_array_elements_text(it.draft -> 'similar_outcomes') AS past
          LEFT JOIN outcomes AS o ON o.optimization_id = past AND o.customer_id = it.customer_id""",
    # An unfinished optimization, or one to be rolled back, needs a workflow.
    "optimizations": """
        SELECT it.id, 'workflow of ' || it.id || ' in progress',
               EXISTS (SELECT FROM dbos.workflow_status AS w WHERE w.status = ANY(:in_progress)
                          AND w.workflow_uuid IN (it.id, concat_ws(':', it.id, 'rollback')))
               OR (it.status = 'pending' AND it.created_at > now() - make_interval(secs => :recovery_seconds))
          FROM optimizations AS it
         WHERE it.status <> ALL(:final) OR (it.status = 'completed' AND it.rollback_reason IS NOT NULL)""",
    "analyses": """
        SELECT it.id, 'workflow of ' || it.id || ' in progress',
               w.workflow_uuid IS NOT NULL OR it.created_at > now() - make_interval(secs => :recovery_seconds)
          FROM analyses AS it
          LEFT JOIN dbos.workflow_status AS w ON w.workflow_uuid = it.id AND w.status = ANY(:in_progress)
         WHERE it.status = 'started'""",
    "workflows": """
        SELECT it.workflow_uuid, 'row ' || split_part(it.workflow_uuid, ':', 1),
               o.id IS NOT NULL OR a.id IS NOT NULL
          FROM dbos.workflow_status AS it
          LEFT JOIN optimizations AS o ON o.id = split_part(it.workflow_uuid, ':', 1)
          LEFT JOIN analyses AS a ON a.id = it.workflow_uuid
         WHERE starts_with(it.workflow_uuid, 'opt_') OR starts_with(it.workflow_uuid, 'anal_')""",
    # Inputs and outputs of workflows and their steps.
    "workflow_records": """
        SELECT it.workflow_uuid, 'workflow ' || it.workflow_uuid, w.workflow_uuid IS NOT NULL
          FROM (SELECT workflow_uuid FROM dbos.operation_outputs UNION SELECT workflow_uuid FROM dbos.workflow_input
                UNION SELECT workflow_uuid FROM dbos.workflow_output) AS it
          LEFT JOIN dbos.workflow_status AS w USING (workflow_uuid)""",
    # Commands that a runtime may still execute although their caller no longer waits.
    "commands": """
        SELECT it.id, 'optimization ' || split_part(it.idempotency_key, ':', 1) || ' in progress', o.id IS NOT NULL
          FROM commands AS it
          LEFT JOIN optimizations AS o ON o.id = split_part(it.idempotency_key, ':', 1) AND o.status <> ALL(:final)
         WHERE it.status = 'pending' AND starts_with(it.idempotency_key, 'opt_')""",
}


async def dangling_in(session: AsyncSession, kind: str) -> tuple[int, list[Dangling]]:
    """How many references of a kind there are, and those that dangle."""
    statement = text(
        f"""WITH each (id, refers_to, found) AS ({SOFT_REFERENCES[kind]})
            SELECT count(*),
                   coalesce(jsonb_agg(jsonb_build_array(id, refers_to) ORDER BY id) FILTER (WHERE NOT found), '[]')
              FROM each"""  # noqa: S608  of our own constants
    )
    count, dangling = (await session.execute(statement, _VALUES)).one()
    return count, [Dangling(store="postgresql", kind=kind, id=one, refers_to=missing) for one, missing in dangling]
