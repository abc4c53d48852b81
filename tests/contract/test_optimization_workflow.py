"""The durable workflow on DBOS and PostgreSQL, with an optimization type that the platform does not have."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dbos import DBOS, DBOSPortableJSONSerializer
from pydantic import Field
from sqlalchemy import select

from optiinfra.api.common import Wire, now
from optiinfra.api.recommendations import Result
from optiinfra.domain.optimization import FINAL, OptimizationStatus
from optiinfra.kit.retries import retry_until_deadline
from optiinfra.orchestrator.errors import Conflict
from optiinfra.orchestrator.inventory import service as inventory
from optiinfra.orchestrator.optimizations import service
from optiinfra.orchestrator.optimizations.context import Detail, InitialContext, Snapshot, StepContext, StepError
from optiinfra.orchestrator.optimizations.executor import StepExecutor
from optiinfra.orchestrator.optimizations.types.base import OptimizationType, Step, nothing_to_roll_back
from optiinfra.orchestrator.optimizations.workflow import OptimizationWorkflow
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database
from tests.contract.conftest import CUSTOMER
from tests.contract.engine import Engine
from tests.unit.orchestrator.optimizations.fakes import FakeCloud, draft

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("customer")]


class SwitchParameters(Wire):
    """Turns switches on; `broken` ones cannot be."""

    switches: list[str]
    broken: list[str] = Field(default_factory=list)


class SwitchSnapshot(Snapshot):
    """Which switches were on."""

    on: list[str]


Context = StepContext[SwitchParameters, SwitchSnapshot]

ON: set[str] = set()
"""Switches that the example type changes."""


async def take_snapshot(change: InitialContext[SwitchParameters]) -> SwitchSnapshot:
    return SwitchSnapshot(cost=100.0, on=sorted(ON))


async def turn_on(context: Context) -> Detail:
    ON.update(context.parameters.switches)
    return {"on": sorted(ON)}


async def turn_off(context: Context) -> Detail:
    ON.intersection_update(context.snapshot.on)
    return {}


async def look(context: Context) -> Detail:
    if broken := sorted(set(context.parameters.broken) & ON):
        raise StepError(f"{', '.join(broken)} stays off")
    return {"seen": context.details["turn_on"]["on"]}


async def measure(context: Context) -> Result:
    return Result(success=True, predicted_savings=10.0, actual_savings=9.0, cost_before=100.0, cost_after=91.0)


async def is_restored(context: Context) -> bool:
    return sorted(ON) == context.snapshot.on


SWITCHES = OptimizationType(
    name="switches",
    parameters=SwitchParameters,
    snapshot=SwitchSnapshot,
    steps=(Step("turn_on", turn_on, turn_off), Step("look", look, nothing_to_roll_back)),
    instance_ids=lambda _parameters: ["i-1"],
    take_snapshot=take_snapshot,
    measure_result=measure,
    is_restored=is_restored,
)


class Memory:
    """Keeps outcomes by optimization."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, float]] = {}

    async def store(self, _customer: str, optimization_id: str, *change: Any) -> None:
        self.kept[optimization_id] = change[-1]


@pytest.fixture(scope="module")
async def workflow(postgresql: Engine) -> AsyncIterator[OptimizationWorkflow]:
    """A launched workflow engine. One a process: DBOS knows an instance by its name."""
    url = postgresql.environment.urls()["postgresql"]
    database = Database(url, _no_notification)
    await database.migrate()
    settings = SimpleNamespace(optimization_deadline_seconds=60.0, rollback_retry_seconds=5.0)
    telemetry = SimpleNamespace(insert_samples=_keep_nothing)
    stores = SimpleNamespace(settings=settings, database=database, memory=Memory(), telemetry=telemetry)
    DBOS(config={"name": "example", "system_database_url": url, "serializer": DBOSPortableJSONSerializer()})
    platform = cast("Platform", stores)
    made = OptimizationWorkflow(platform, StepExecutor(platform, {"switches": SWITCHES}, _empty_account))
    DBOS.launch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inventory, "cloud_of", _empty_account)
        yield made
    DBOS.destroy()
    await database.close()


async def _no_notification(_channel: str) -> None:
    """There is no reader."""


async def _keep_nothing(*_rows: Any) -> None:
    """Telemetry is not used here."""


async def _empty_account(*_account: Any) -> FakeCloud:
    """A cloud account without instances: the example type changes nothing in it."""
    return FakeCloud()


@pytest.fixture(autouse=True)
async def approved(database: Database, customer: None) -> None:
    """What every optimization here refers to: an account with one instance, and an analysis."""
    ON.clear()
    ON.add("hall")
    async with database.transaction() as session:
        session.add(
            models.CloudAccount(
                id="acct_1",
                customer_id=CUSTOMER,
                provider="aws",
                region="us-east-1",
                role_arn="r",
                account_id="111122223333",
                status="discovered",
            )
        )
        session.add(models.ConnectedAccount(provider="aws", account_id="111122223333", customer_id=CUSTOMER))
        session.add(models.Analysis(id="anal_1", customer_id=CUSTOMER, agent_type="cost", status="completed"))
        await session.flush()
        session.add(
            models.Instance(
                customer_id=CUSTOMER,
                instance_id="i-1",
                cloud_account_id="acct_1",
                provider="aws",
                region="us-east-1",
                instance_type="g5.xlarge",
                lifecycle="on-demand",
                state="running",
                monthly_cost=100.0,
                seen_at=now(),
            )
        )


async def approve(database: Database, name: str, parameters: SwitchParameters, status: str = "pending") -> None:
    """Store an approved recommendation and its optimization."""
    change = draft("idle_shutdown", parameters, None)
    async with database.transaction() as session:
        session.add(
            models.Recommendation(
                id=f"rec_{name}",
                customer_id=CUSTOMER,
                analysis_id="anal_1",
                agent_type="cost",
                status="approved",
                draft=change.model_dump(mode="json"),
                validations=[],
                expires_at=now(),
            )
        )
        await session.flush()
        session.add(
            models.Optimization(
                id=f"opt_{name}",
                customer_id=CUSTOMER,
                recommendation_id=f"rec_{name}",
                type="switches",
                status=status,
                trace_id="t",
            )
        )


async def run(workflow: OptimizationWorkflow, database: Database, name: str, parameters: SwitchParameters) -> Any:
    """Have an approved optimization executed; its row once it has ended."""
    await approve(database, name, parameters)
    await workflow.start(f"opt_{name}")
    return await ended(database, f"opt_{name}")


async def ended(database: Database, optimization_id: str) -> models.Optimization:
    async def look() -> models.Optimization:
        async with database.transaction() as session:
            row = await session.get_one(models.Optimization, optimization_id)
        assert row.status in FINAL, f"it is {row.status}"
        return row

    return await retry_until_deadline(look, "the optimization", 30.0)


async def steps_of(database: Database, optimization_id: str) -> list[tuple[str, str]]:
    table = models.OptimizationStep
    query = select(table).where(table.optimization_id == optimization_id).order_by(table.position)
    async with database.transaction() as session:
        return [(step.name, step.status) for step in await session.scalars(query)]


async def test_new_type_is_executed_measured_and_remembered(workflow: OptimizationWorkflow, database: Database) -> None:
    row = await run(workflow, database, "done", SwitchParameters(switches=["porch"]))

    assert row.status == "completed", row.result
    assert {"hall", "porch"} == ON
    assert row.result is not None
    assert row.result["actual_savings"] == 9.0
    assert await steps_of(database, row.id) == [("turn_on", "completed"), ("look", "completed")]
    async with database.transaction() as session:
        events = list(await session.scalars(select(models.Event).order_by(models.Event.seq)))
        outcome = await session.get_one(models.Outcome, row.id)
    assert outcome.measured == {"savings": 9.0}
    assert [(event.event_type, event.step, event.progress) for event in events] == [
        ("optimization_started", None, 0.0),
        ("step_started", "turn_on", 0.0),
        ("step_completed", "turn_on", 0.5),
        ("step_started", "look", 0.5),
        ("step_completed", "look", 1.0),
        ("outcome_stored", None, None),
        ("optimization_completed", None, 1.0),
    ]


async def test_new_type_that_fails_is_rolled_back_in_reverse_order(
    workflow: OptimizationWorkflow, database: Database
) -> None:
    row = await run(workflow, database, "broken", SwitchParameters(switches=["porch"], broken=["porch"]))

    assert row.status == "rolled_back", row.result
    assert {"hall"} == ON
    assert row.result is not None
    assert (row.result["success"], row.result["error"]) == (False, "porch stays off")
    assert row.result["original_state_restored"] is True
    assert row.result["cost_before"] == 100.0
    assert await steps_of(database, row.id) == [
        ("turn_on", "completed"),
        ("look", "failed"),
        ("undo_look", "completed"),
        ("undo_turn_on", "completed"),
    ]


async def test_completed_optimization_is_rolled_back_on_request(
    workflow: OptimizationWorkflow, database: Database
) -> None:
    row = await run(workflow, database, "regretted", SwitchParameters(switches=["porch"]))
    async with database.transaction() as session:
        asked = await session.get_one(models.Optimization, row.id)
        asked.rollback_reason = "rolled back on request"
    await workflow.start_rollback(row.id)

    async def rolled_back() -> None:
        async with database.transaction() as session:
            assert (await session.get_one(models.Optimization, row.id)).status == "rolled_back"

    await retry_until_deadline(rolled_back, "the rollback", 30.0)
    assert {"hall"} == ON


async def test_rollback_request_while_another_change_uses_the_resources_is_refused(
    workflow: OptimizationWorkflow, database: Database
) -> None:
    row = await run(workflow, database, "earlier", SwitchParameters(switches=["porch"]))
    await approve(database, "later", SwitchParameters(switches=["attic"]), status="running")
    async with database.transaction() as session:
        # The answer shows the type, and the API knows the platform's own types only.
        (await session.get_one(models.Optimization, row.id)).type = "idle_shutdown"
    with pytest.raises(Conflict, match="opt_later is still changing these resources"):
        await service.request_rollback(database, CUSTOMER, row.id)
    async with database.transaction() as session:
        later = await session.get_one(models.Optimization, "opt_later")
        later.status = OptimizationStatus.ROLLED_BACK
    assert (await service.request_rollback(database, CUSTOMER, row.id)).id == row.id


async def test_durable_names_are_unchanged(workflow: OptimizationWorkflow, database: Database) -> None:
    row = await run(workflow, database, "named", SwitchParameters(switches=["porch"], broken=["porch"]))
    status = await DBOS.get_workflow_status_async(row.id)
    assert status is not None
    assert (status.class_name, status.name) == ("OptimizationWorkflow", "optimization")
    recorded = [step["function_name"] for step in await DBOS.list_workflow_steps_async(row.id)]
    assert recorded == [
        "plan",
        "turn_on",
        "look",
        "begin_rollback",
        "undo_look",
        "undo_turn_on",
        "check_restored",
        "finish_rollback",
    ]
