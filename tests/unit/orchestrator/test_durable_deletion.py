"""Deletion of a customer's workflows: those that run may end first, and are cancelled if they do not."""

from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import NoResultFound

from optiinfra.orchestrator import durable

pytestmark = pytest.mark.anyio


class Workflows:
    """DBOS with workflows of cust_1, by id; those that run end at the `ends`-th look at them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ends: int | None = None, **states: str) -> None:
        self.states, self.done, self._looks, self._ends = states, list[str](), 0, ends
        monkeypatch.setattr(durable, "DBOS", self)
        monkeypatch.setattr(durable, "_ENDING_SECONDS", 0.3)

    async def list_workflows_async(self, *, attributes: Any, status: list[str] | None, **_more: Any) -> list[Any]:
        assert attributes == {"customer_id": "cust_1"}
        self._looks += status is not None
        if self._looks == self._ends:
            self.states = dict.fromkeys(self.states, "SUCCESS")
        wanted = [name for name, state in self.states.items() if status is None or state in status]
        return [SimpleNamespace(workflow_id=name) for name in wanted]

    async def cancel_workflows_async(self, ids: list[str]) -> None:
        self.done.append(f"cancelled {', '.join(ids)}")

    async def delete_workflows_async(self, ids: list[str]) -> None:
        self.done.append(f"deleted {', '.join(ids)}")


async def test_workflows_that_ended_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    workflows = Workflows(monkeypatch, opt_1="SUCCESS", anal_1="ERROR")
    await durable.delete_workflows("cust_1")
    assert workflows.done == ["deleted opt_1, anal_1"]


async def test_one_that_runs_is_let_end(monkeypatch: pytest.MonkeyPatch) -> None:
    workflows = Workflows(monkeypatch, ends=2, anal_1="PENDING")
    await durable.delete_workflows("cust_1")
    assert workflows.done == ["deleted anal_1"]


async def test_one_that_does_not_end_is_cancelled_before_it_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    workflows = Workflows(monkeypatch, opt_1="SUCCESS", anal_1="PENDING")
    await durable.delete_workflows("cust_1")
    assert workflows.done == ["cancelled anal_1", "deleted opt_1, anal_1"]


async def test_where_there_is_no_workflow_none_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    workflows = Workflows(monkeypatch)
    await durable.delete_workflows("cust_1")
    assert workflows.done == []


def test_a_row_that_is_gone_is_not_waited_for() -> None:
    should_retry = durable.retry_on_errors("draft")["should_retry"]
    assert should_retry is not None
    assert not should_retry(NoResultFound())
    assert should_retry(ConnectionError())
