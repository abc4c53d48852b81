"""The verdict on consistency: kept as evidence, told in words, and an exit code."""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from testbed import consistency, evidence, paths, startup
from testbed.environment import SetupError

FINE = {"consistent": True, "checked": {"presence": 4}, "dangling": []}
LOST = {"store": "redis", "kind": "presence", "id": "agent_1", "refers_to": "registered agent agent_1"}
BROKEN = {"consistent": False, "checked": {"presence": 4}, "dangling": [LOST]}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["consistency", "e2e", "--name", "x"])
    monkeypatch.setattr(startup, "needed", lambda name: name)
    return tmp_path


def kept(root: Path) -> Path:
    return root / "reports" / "evidence" / "e2e" / "consistency.json"


@pytest.mark.parametrize(("answer", "code"), [(FINE, 0), (BROKEN, 1)])
def test_the_answer_is_kept_and_is_the_exit_code(
    root: Path, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], code: int
) -> None:
    monkeypatch.setattr(consistency, "fetch", lambda _environment: answer)
    assert consistency.main() == code
    assert json.loads(kept(root).read_text()) == answer


def test_who_cannot_be_asked_is_no_consistency_and_leaves_no_old_one(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(_environment: object) -> dict[str, Any]:
        raise SetupError("the orchestrator could not be asked: refused")

    kept(root).parent.mkdir(parents=True)
    kept(root).write_text(json.dumps(FINE))
    monkeypatch.setattr(consistency, "fetch", away)
    assert consistency.main() == 1
    assert not kept(root).exists()
    assert "could not be asked: refused" in capsys.readouterr().err


def test_what_dangles_is_told_in_a_line() -> None:
    assert consistency.summary(BROKEN).splitlines() == [
        "dangling references: 1",
        "  redis presence agent_1 -> registered agent agent_1",
    ]


@pytest.mark.parametrize("age", [-60, 60])
def test_only_this_sessions_answer_is_evidence(root: Path, age: int) -> None:
    began = datetime.now(UTC)
    kept(root).parent.mkdir(parents=True)
    kept(root).write_text(json.dumps(FINE))
    os.utime(kept(root), times=(began.timestamp() + age,) * 2)
    evidence.collect("e2e", "x", began)
    assert kept(root).exists() == (age > 0)
