"""The application agent: scoring, the baseline, and the judgement of a stage."""

from typing import Any, cast

import pytest

from optiinfra.agents.app_agent.scoring import is_right
from optiinfra.agents.app_agent.validation import judge, validate
from optiinfra.agents.base.agent import Sources
from optiinfra.api.agents import Draft, JudgeTask, Prediction, ValidateTask
from optiinfra.api.common import now
from optiinfra.api.runtimes import GoldenAnswer
from tests.unit.agents.estate import deployment, infrastructure, instances

NO_SOURCES = cast("Sources", None)
pytestmark = pytest.mark.anyio


def answers(right: int, wrong: int) -> list[GoldenAnswer]:
    given = ["It is Paris."] * right + ["It is Rome."] * wrong
    return [GoldenAnswer(prompt_id=f"p{n}", turns=1, expected="Paris", answer=text) for n, text in enumerate(given)]


def validation(golden: list[GoldenAnswer]) -> ValidateTask:
    owned = instances()
    draft = Draft(
        type="spot_migration",
        title="t",
        explanation="e",
        risk_level="low",
        confidence=0.5,
        estimated_savings=1,
        predicted=Prediction(monthly_cost=1, p95_latency_ms=1, quality_score=None),
        affected_resources=[],
        deployment_id="dep_1",
        parameters={},
        modelled={},
        features=[],
        similar_outcomes=[],
    )
    estate = infrastructure(owned, deployment(owned))
    return ValidateTask(task_id="t1", customer_id="c", draft=draft, infrastructure=estate, golden_answers=golden)


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
