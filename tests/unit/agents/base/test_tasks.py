"""Idempotent execution of tasks."""

import asyncio

import pytest

from optiinfra.agents.base import tasks
from optiinfra.agents.base.tasks import TaskRunner
from optiinfra.api.agents import AnalyzeAnswer

pytestmark = pytest.mark.anyio


class Analysis:
    """Work that counts its runs, waits for `finish`, and fails if `fail` is set."""

    def __init__(self) -> None:
        self.runs, self.fail = 0, False
        self.started, self.finish = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> AnalyzeAnswer:
        self.runs += 1
        self.started.set()
        await self.finish.wait()
        if self.fail:
            raise RuntimeError("failed")
        return AnalyzeAnswer(drafts=[], summary=f"run {self.runs}")


@pytest.fixture
def analysis() -> Analysis:
    return Analysis()


async def test_task_delivered_again_while_running_and_after_runs_once(analysis: Analysis) -> None:
    runner = TaskRunner()
    both = [asyncio.create_task(runner.run("task_1", analysis)) for _ in range(2)]
    await asyncio.wait_for(analysis.started.wait(), 2)
    assert runner.in_progress == 1
    analysis.finish.set()
    answers = [*await asyncio.gather(*both), await runner.run("task_1", analysis)]
    assert answers == [AnalyzeAnswer(drafts=[], summary="run 1")] * 3
    assert (analysis.runs, runner.in_progress) == (1, 0)


async def test_task_with_another_id_runs_again(analysis: Analysis) -> None:
    analysis.finish.set()
    runner = TaskRunner()
    await runner.run("task_1", analysis)
    assert await runner.run("task_2", analysis) == AnalyzeAnswer(drafts=[], summary="run 2")


async def test_task_that_failed_runs_again(analysis: Analysis) -> None:
    analysis.finish.set()
    runner, analysis.fail = TaskRunner(), True
    with pytest.raises(RuntimeError, match="failed"):
        await runner.run("task_1", analysis)
    analysis.fail = False
    assert await runner.run("task_1", analysis) == AnalyzeAnswer(drafts=[], summary="run 2")


async def test_task_continues_when_its_first_caller_disconnects(analysis: Analysis) -> None:
    runner = TaskRunner()
    first = asyncio.create_task(runner.run("task_1", analysis))
    await asyncio.sleep(0)
    first.cancel()
    second = asyncio.create_task(runner.run("task_1", analysis))
    await asyncio.sleep(0)
    analysis.finish.set()
    assert await second == AnalyzeAnswer(drafts=[], summary="run 1")


async def test_remembered_answers_are_limited_to_the_latest(
    analysis: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "REMEMBERED_ANSWERS", 2)
    analysis.finish.set()
    runner = TaskRunner()
    for task_id in ("task_1", "task_2", "task_3"):
        await runner.run(task_id, analysis)
    await runner.run("task_3", analysis)
    assert analysis.runs == 3
    await runner.run("task_1", analysis)
    assert analysis.runs == 4
