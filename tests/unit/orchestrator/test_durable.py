"""Retry policies of durable steps, and deletion of a customer's workflows."""

from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import NoResultFound

from optiinfra.orchestrator import durable
from optiinfra.orchestrator.durable import delete_workflows, retry_on_errors, retry_while_unavailable
from optiinfra.stores.errors import StoreUnavailable

DAY = 24 * 3600


def test_retry_while_unavailable_outlasts_any_outage() -> None:
    options: dict[str, Any] = dict(retry_while_unavailable("complete"))
    assert options["should_retry"](StoreUnavailable("PostgreSQL does not answer"))
    assert options["interval_seconds"] * options["max_attempts"] > DAY
    assert options["backoff_rate"] == 1.0, "the step is retried soon after the store is back"
    assert not options["should_retry"](ValueError("a defect stays one"))


def test_retry_on_errors_outlasts_half_a_minute_and_ignores_missing_rows() -> None:
    options: dict[str, Any] = dict(retry_on_errors("draft"))
    waits = [options["interval_seconds"] * 2**number for number in range(options["max_attempts"] - 1)]
    assert sum(waits) > 30
    assert options["should_retry"](StoreUnavailable("ClickHouse does not answer"))
    assert not options["should_retry"](NoResultFound())


class Workflows:
    """DBOS with workflows of cust_1, by id; those that run end at the `ends`-th query for running ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ends: int | None = None, **states: str) -> None:
        self.states, self.done, self._queries, self._ends = states, list[str](), 0, ends
        monkeypatch.setattr(durable, "DBOS", self)

    async def list_workflows_async(self, *, attributes: Any, status: list[str] | None, **_more: Any) -> list[Any]:
        assert attributes == {"customer_id": "cust_1"}
        self._queries += status is not None
        if self._queries == self._ends:
            self.states = dict.fromkeys(self.states, "SUCCESS")
        wanted = [name for name, state in self.states.items() if status is None or state in status]
        return [SimpleNamespace(workflow_id=name) for name in wanted]

    async def cancel_workflows_async(self, ids: list[str]) -> None:
        self.done.append(f"cancelled {', '.join(ids)}")

    async def delete_workflows_async(self, ids: list[str]) -> None:
        self.done.append(f"deleted {', '.join(ids)}")


@pytest.mark.anyio
async def test_delete_workflows_that_ended_deletes_them_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    workflows = Workflows(monkeypatch, opt_1="SUCCESS", anal_1="ERROR")
    await delete_workflows("cust_1", ending_seconds=0.3)
    assert workflows.done == ["deleted opt_1, anal_1"]


@pytest.mark.anyio
async def test_delete_workflows_waits_for_a_running_one_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    workflows = Workflows(monkeypatch, ends=2, anal_1="PENDING")
    await delete_workflows("cust_1", ending_seconds=0.3)
    assert workflows.done == ["deleted anal_1"]


@pytest.mark.anyio
async def test_delete_workflows_cancels_one_that_does_not_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    workflows = Workflows(monkeypatch, opt_1="SUCCESS", anal_1="PENDING")
    await delete_workflows("cust_1", ending_seconds=0.3)
    assert workflows.done == ["cancelled anal_1", "deleted opt_1, anal_1"]


@pytest.mark.anyio
async def test_delete_workflows_without_any_deletes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    workflows = Workflows(monkeypatch)
    await delete_workflows("cust_1", ending_seconds=0.3)
    assert workflows.done == []
