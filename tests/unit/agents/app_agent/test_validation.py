"""The application agent's validation rules, and its judgement of canary stages."""

from typing import Any

import pytest

from optiinfra.agents.app_agent.scoring import is_correct
from optiinfra.agents.app_agent.validation import judge, validate
from optiinfra.api.agents import JudgeTask, ValidateTask
from optiinfra.api.common import now
from optiinfra.api.runtimes import GoldenAnswer
from tests.unit.agents.estate import idle_instance
from tests.unit.agents.fakes import fake_sources
from tests.unit.agents.tasks import idle_shutdown_task, validation_task

pytestmark = pytest.mark.anyio


def answers(right: int, wrong: int) -> list[GoldenAnswer]:
    given = ["It is Paris."] * right + ["It is Rome."] * wrong
    return [GoldenAnswer(prompt_id=f"p{n}", turns=1, expected="Paris", answer=text) for n, text in enumerate(given)]


def validation(golden: list[GoldenAnswer]) -> ValidateTask:
    return validation_task("spot_migration", deployment_id="dep_1", golden_answers=golden)


def stage(golden: list[GoldenAnswer], baseline: float = 0.95, lost: int = 0) -> JudgeTask:
    """A stage with these answers; before the change, `lost` of the wrong ones were correct."""
    before, kept = list(golden), sum(map(is_correct, golden))
    before[kept : kept + lost] = [
        answer.model_copy(update={"answer": answer.expected}) for answer in golden[kept:][:lost]
    ]
    measured: dict[str, Any] = {"slo_p95_latency_ms": 1, "slo_quality": 0.85, "baseline_quality": baseline}
    return JudgeTask(
        task_id="t1",
        customer_id="c",
        deployment_id="dep_1",
        stage="validate_canary",
        since=now(),
        replica_ids=["r"],
        look=1,
        golden_answers=golden,
        baseline_answers=before,
        **measured,
    )


async def test_baseline_is_the_share_of_correct_answers_today() -> None:
    found = await validate(validation(answers(57, 3)), fake_sources())
    assert (found.approved, found.baseline_established) == (True, True)
    assert found.baseline_quality == pytest.approx(0.95)
    assert "57 of 60" in found.reason


async def test_validation_without_answers_is_refused_without_a_baseline() -> None:
    found = await validate(validation([]), fake_sources())
    assert (found.approved, found.baseline_established, found.baseline_quality) == (False, False, None)


async def test_validation_below_the_quality_slo_is_refused() -> None:
    found = await validate(validation(answers(50, 10)), fake_sources())
    assert not found.approved
    assert "below its own SLO of 0.90" in found.reason


@pytest.mark.parametrize(
    ("right", "wrong", "lost", "decision"),
    [(0, 0, 0, "continue"), (114, 6, 0, "pass"), (112, 8, 5, "continue"), (60, 60, 55, "fail")],
)
async def test_stage_is_judged_by_all_its_answers(right: int, wrong: int, lost: int, decision: str) -> None:
    assert (await judge(stage(answers(right, wrong), lost=lost), fake_sources())).decision == decision


async def test_stage_with_a_baseline_of_other_prompts_is_an_error() -> None:
    task = stage(answers(114, 6))
    with pytest.raises(ValueError, match="does not cover the 120 prompts"):
        await judge(task.model_copy(update={"baseline_answers": task.baseline_answers[1:]}), fake_sources())


async def test_idle_shutdown_is_approved_without_a_quality_baseline() -> None:
    found = await validate(idle_shutdown_task(idle_instance()), fake_sources())
    assert (found.agent_type, found.approved) == ("application", True)
    assert (found.baseline_established, found.baseline_quality) == (None, None)
    assert "no deployment answers from these instances" in found.reason


async def test_idle_shutdown_is_refused_when_an_instance_hosts_an_engine() -> None:
    found = await validate(idle_shutdown_task(idle_instance(), engine_state="ready"), fake_sources())
    assert (found.approved, found.reason) == (False, "i-9 hosts replica r-i-9 of vllm-prod-1 (ready)")


async def test_unknown_recommendation_type_is_refused() -> None:
    found = await validate(validation_task("quantization", golden_answers=answers(60, 0)), fake_sources())
    assert not found.approved
    assert "no validation rule for quantization" in found.reason
