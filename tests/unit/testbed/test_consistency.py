"""The consistency check: its evidence, its summary, and its exit code."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from testbed import consistency, paths, startup
from testbed.environment import SetupError

CONSISTENT = {"consistent": True, "checked": {"presence": 4}, "dangling": []}
DANGLING = {"store": "redis", "kind": "presence", "id": "agent_1", "refers_to": "registered agent agent_1"}
INCONSISTENT = {"consistent": False, "checked": {"presence": 4}, "dangling": [DANGLING]}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["consistency", "e2e", "--name", "x"])
    monkeypatch.setattr(startup, "needed", lambda name: name)
    return tmp_path


def saved(root: Path) -> Path:
    return root / "reports" / "evidence" / "e2e" / "consistency.json"


@pytest.mark.parametrize(("answer", "code"), [(CONSISTENT, 0), (INCONSISTENT, 1)])
def test_main_saves_the_report_and_returns_its_verdict(
    root: Path, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], code: int
) -> None:
    monkeypatch.setattr(consistency, "fetch", lambda _environment: answer)
    assert consistency.main() == code
    assert json.loads(saved(root).read_text()) == answer


def test_main_without_a_report_fails_and_removes_the_old_one(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_environment: object) -> dict[str, Any]:
        raise SetupError("no consistency report from the orchestrator: refused")

    saved(root).parent.mkdir(parents=True)
    saved(root).write_text(json.dumps(CONSISTENT))
    monkeypatch.setattr(consistency, "fetch", fail)
    assert consistency.main() == 1
    assert not saved(root).exists()
    assert "no consistency report from the orchestrator: refused" in capsys.readouterr().err


def test_summary_has_a_line_for_each_dangling_reference() -> None:
    assert consistency.summary(INCONSISTENT).splitlines() == [
        "dangling references: 1",
        "  redis presence agent_1 -> registered agent agent_1",
    ]
