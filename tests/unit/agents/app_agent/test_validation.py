"""The application agent: scoring, the baseline, and the judgement of a stage."""

from typing import Any, cast

import pytest

from optiinfra.agents.app_agent.scoring import is_right
from optiinfra.agents.app_agent.validation import judge, validate
from optiinfra.agents.base.agent import Sources
from optiinfra.api.agents import JudgeTask, ValidateTask
from optiinfra.api.common import now
from optiinfra.api.runtimes import GoldenAnswer
from tests.unit.agents.estate import idle_instance
from tests.unit.agents.tasks import idle_shutdown_task, validation_task

NO_SOURCES = cast("Sources", None)
pytestmark = pytest.mark.anyio


def answers(right: int, wrong: int) -> list[GoldenAnswer]:
    given = ["It is Paris."] * right + ["It is Rome."] * wrong
    return [GoldenAnswer(prompt_id=f"p{n}", turns=1, expected="Paris", answer=text) for n, text in enumerate(given)]


def validation(golden: list[GoldenAnswer]) -> ValidateTask:
    return validation_task("spot_migration", deployment_id="dep_1", golden_answers=golden)


def stage(golden: list[GoldenAnswer], baseline: float = 0.95, lost: int = 0) -> JudgeTask:
    """A stage that gave these answers; before, as many were right as now, and so many of the wrong ones too."""
    before, kept = list(golden), sum(map(is_right, golden))
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


@pytest.mark.parametrize(
    ("expected", "answer", "right"),
    [
        ("Canberra", "  The capital is CANBERRA. ", True),
        ("carbon dioxide", "It is carbon\n dioxide, mostly.", True),
        ("1440", "There are 1,440 minutes.", True),
        ("750", "$750 are left", True),
        ("5", "15", False),
        ("5", "5.2", False),
        ("5", "-5", False),
        ("-5", "It is -5.", True),
        ("no", "I do not know", False),
        ("17:30", "At 17:30.", True),
        ("Canberra", "Unclear.", False),
    ],
)
async def test_an_answer_is_right_when_it_holds_the_expected_word(expected: str, answer: str, right: bool) -> None:
    assert is_right(GoldenAnswer(prompt_id="p", turns=1, expected=expected, answer=answer)) is right


async def test_the_baseline_is_what_the_deployment_answers_right_today() -> None:
    found = await validate(validation(answers(57, 3)), NO_SOURCES)
    assert (found.approved, found.baseline_established) == (True, True)
    assert found.baseline_quality == pytest.approx(0.95)
    assert "57 of 60" in found.reason


async def test_without_answers_there_is_no_baseline() -> None:
    found = await validate(validation([]), NO_SOURCES)
    assert (found.approved, found.baseline_established, found.baseline_quality) == (False, False, None)


async def test_a_deployment_below_its_own_objective_is_not_changed() -> None:
    found = await validate(validation(answers(50, 10)), NO_SOURCES)
    assert not found.approved
    assert "below its own SLO of 0.90" in found.reason


@pytest.mark.parametrize(
    ("right", "wrong", "lost", "decision"),
    [(0, 0, 0, "continue"), (114, 6, 0, "pass"), (112, 8, 5, "continue"), (60, 60, 55, "fail")],
)
async def test_a_stage_is_judged_by_all_its_answers(right: int, wrong: int, lost: int, decision: str) -> None:
    assert (await judge(stage(answers(right, wrong), lost=lost), NO_SOURCES)).decision == decision


async def test_answers_to_other_prompts_are_no_baseline() -> None:
    task = stage(answers(114, 6))
    with pytest.raises(ValueError, match="not to the 120 prompts"):
        await judge(task.model_copy(update={"baseline_answers": task.baseline_answers[1:]}), NO_SOURCES)


async def test_idle_shutdown_is_approved_without_a_quality_baseline() -> None:
    found = await validate(idle_shutdown_task(idle_instance()), NO_SOURCES)
    assert (found.agent_type, found.approved) == ("application", True)
    assert (found.baseline_established, found.baseline_quality) == (None, None)
    assert "no deployment answers from these instances" in found.reason


async def test_idle_shutdown_is_refused_when_an_instance_hosts_an_engine() -> None:
    found = await validate(idle_shutdown_task(idle_instance(), engine_state="ready"), NO_SOURCES)
    assert (found.approved, found.reason) == (False, "i-9 hosts replica r-i-9 of vllm-prod-1 (ready)")


async def test_unknown_recommendation_type_is_refused() -> None:
    found = await validate(validation_task("quantization", golden_answers=answers(60, 0)), NO_SOURCES)
    assert not found.approved
    assert "no validation rule for quantization" in found.reason
