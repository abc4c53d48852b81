"""Single steps: what is retried, for how long, and what ends them."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from optiinfra.api.common import Wire, now
from optiinfra.api.recommendations import Result
from optiinfra.clouds.protocol import CloudError, CloudUnavailable, InsufficientCapacity, RoleDenied
from optiinfra.domain.optimization import rollback_step
from optiinfra.orchestrator.optimizations.context import Detail, Snapshot, StepContext
from optiinfra.orchestrator.optimizations.executor import StepExecutor
from optiinfra.orchestrator.optimizations.journal import Journal, Record
from optiinfra.orchestrator.optimizations.types.base import OptimizationType, Step
from optiinfra.stores.postgres import models
from tests.unit.orchestrator.optimizations.fakes import FakeCloud, draft, platform

Action = Callable[[StepContext[Any, Any]], Awaitable[Detail]]


class Nothing(Wire):
    """Parameters without any."""


class FakeJournal(Journal):
    """One optimization in memory; `ended` is how its step ended."""

    def __init__(self, optimization: models.Optimization) -> None:
        self.optimization, self.ended = optimization, list[tuple[str, Detail, str | None]]()
        self.recommendation = models.Recommendation(
            id="rec_1", draft=draft("spot_migration", Nothing(), None).model_dump(mode="json"), validations=[]
        )

    async def begin_step(self, optimization_id: str, name: str) -> Record:
        return self._with(name)

    async def begin_rollback_step(self, optimization_id: str, name: str) -> Record:
        return self._with(rollback_step(name))

    async def read(self, optimization_id: str) -> Record:
        return self._with("only")

    async def end_step(self, optimization_id: str, name: str, detail: Detail, error: str | None = None) -> None:
        self.ended.append((name, detail, error))

    def _with(self, name: str) -> Record:
        step = models.OptimizationStep(name=name, status="running", attempt=1, detail={})
        return Record(self.optimization, self.recommendation, {name: step})


async def _nothing(_context: StepContext[Any, Any]) -> Detail:
    return {}


def executor_of(
    execute: Action = _nothing,
    rollback: Action = _nothing,
    *,
    measured: Result | None = None,
    connect: Callable[..., Awaitable[FakeCloud]] | None = None,
    age: float = 0.0,
    owner: str = "cust_1",
    holder: str | None = "cust_1",
    **settings: float,
) -> tuple[StepExecutor, FakeJournal]:
    """An executor of one type with one step, for an optimization that started `age` seconds ago."""

    async def measure(_context: StepContext[Any, Any]) -> Result:
        assert measured is not None
        return measured

    async def unused(_context: Any) -> Any:
        raise AssertionError("nothing is looked at here")

    kind = OptimizationType(
        name="example",
        parameters=Nothing,
        snapshot=Snapshot,
        steps=(Step("only", execute, rollback),),
        instance_ids=lambda _parameters: (),
        take_snapshot=unused,
        measure_result=measure,
        is_restored=unused,
    )
    account = models.CloudAccount(id="acct_1", customer_id=owner, provider="aws", account_id="111122223333")
    chosen = {"optimization_deadline_seconds": 60.0, "rollback_retry_seconds": 5.0} | settings
    stores = SimpleNamespace(settings=platform(**chosen).settings, database=_Accounts(account, holder))

    async def fake_cloud(*_account: Any) -> FakeCloud:
        return FakeCloud()

    executor = StepExecutor(cast("Any", stores), {"example": kind}, connect or fake_cloud)
    optimization = models.Optimization(
        id="opt_1",
        customer_id="cust_1",
        type="example",
        status="running",
        trace_id="t",
        snapshot={"cost": 100.0, "cloud_account_id": "acct_1"},
        started_at=now() - timedelta(seconds=age),
    )
    executor.journal = journal = FakeJournal(optimization)
    return executor, journal


class _Accounts:
    """A database with one cloud account, which `holder` has connected."""

    def __init__(self, account: models.CloudAccount, holder: str | None) -> None:
        self._account, self._holder = account, holder

    def transaction(self) -> "_Accounts":
        return self

    async def __aenter__(self) -> "_Accounts":
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Nothing to commit."""

    async def get(self, *_key: Any) -> models.CloudAccount:
        return self._account

    async def scalar(self, _holder_of: Any) -> str | None:
        return self._holder


@pytest.mark.parametrize(
    "refusal", [CloudUnavailable("away"), RoleDenied("no"), InsufficientCapacity("none"), CloudError("wrong")]
)
def test_rollback_retries_whatever_the_cloud_refuses(refusal: CloudError) -> None:
    refusals = [refusal]

    async def roll_back(_context: StepContext[Any, Any]) -> Detail:
        if refusals:
            raise refusals.pop()
        return {"done": True}

    executor, journal = executor_of(rollback=roll_back)
    assert asyncio.run(executor.roll_back("opt_1", "only")) is None
    assert journal.ended == [("undo_only", {"done": True}, None)]


def test_rollback_after_the_deadline_has_its_own_deadline() -> None:
    async def roll_back(_context: StepContext[Any, Any]) -> Detail:
        await asyncio.sleep(0.05)
        return {}

    executor, journal = executor_of(rollback=roll_back, age=100.0, optimization_deadline_seconds=0.01)
    assert asyncio.run(executor.roll_back("opt_1", "only")) is None
    assert journal.ended == [("undo_only", {}, None)]


def test_rollback_that_stays_refused_ends_with_the_last_refusal() -> None:
    async def roll_back(_context: StepContext[Any, Any]) -> Detail:
        raise RoleDenied("AssumeRole: AccessDenied")

    executor, _ = executor_of(rollback=roll_back, rollback_retry_seconds=0.01)
    assert asyncio.run(executor.roll_back("opt_1", "only")) == "AssumeRole: AccessDenied"


def test_step_refused_by_the_cloud_fails_without_retry() -> None:
    attempts: list[int] = []

    async def fail(_context: StepContext[Any, Any]) -> Detail:
        attempts.append(1)
        raise InsufficientCapacity("none left")

    executor, journal = executor_of(fail)
    assert asyncio.run(executor.execute("opt_1", "only")) == "none left"
    assert journal.ended == [("only", {}, "none left")]
    assert attempts == [1]


def test_step_past_the_deadline_fails() -> None:
    async def wait(_context: StepContext[Any, Any]) -> Detail:
        await asyncio.Event().wait()
        return {}

    executor, journal = executor_of(wait, age=100.0, optimization_deadline_seconds=1.0)
    assert asyncio.run(executor.execute("opt_1", "only")) == "the optimization's deadline passed"
    assert journal.ended == [("only", {}, "the optimization's deadline passed")]


def test_step_begun_before_a_requested_rollback_fails_with_the_request() -> None:
    async def act(_context: StepContext[Any, Any]) -> Detail:
        raise AssertionError("nothing may be changed any more")

    executor, journal = executor_of(act)
    journal.optimization.rollback_reason = "rolled back on request"
    assert asyncio.run(executor.execute("opt_1", "only")) == "rolled back on request"
    assert journal.ended == [("only", {}, "rolled back on request")]


@pytest.mark.parametrize(("owner", "holder"), [("cust_2", "cust_1"), ("cust_1", "cust_2"), ("cust_1", None)])
def test_step_in_an_account_that_is_not_the_customers_is_not_executed(owner: str, holder: str | None) -> None:
    async def act(_context: StepContext[Any, Any]) -> Detail:
        raise AssertionError("nothing may be changed there")

    async def connect(*_account: Any) -> FakeCloud:
        raise AssertionError("nobody may enter it")

    executor, _ = executor_of(act, connect=connect, owner=owner, holder=holder)
    reason = "the cloud account that holds the instances is no longer connected"
    assert asyncio.run(executor.execute("opt_1", "only")) == reason


def test_defect_in_a_step_is_raised_and_leaves_it_running() -> None:
    async def fail(_context: StepContext[Any, Any]) -> Detail:
        raise TypeError("a defect")

    executor, journal = executor_of(fail)
    with pytest.raises(TypeError, match="a defect"):
        asyncio.run(executor.execute("opt_1", "only"))
    assert journal.ended == []


def test_result_without_savings_in_the_inventory_is_no_success() -> None:
    seen = Result(success=True, predicted_savings=100.0, actual_savings=0.0, cost_before=100.0, cost_after=100.0)
    executor, _ = executor_of(measured=seen)
    result = asyncio.run(executor.measure_result("opt_1"))
    assert not result.success
    assert result.error == "the inventory shows no savings"


def test_result_that_cannot_be_measured_claims_no_savings() -> None:
    async def denied(*_account: Any) -> FakeCloud:
        raise RoleDenied("no such role")

    executor, _ = executor_of(connect=denied)
    result = asyncio.run(executor.measure_result("opt_1"))
    assert result.actual_savings is None
    assert result.error == "made, but the result could not be measured: no such role"
