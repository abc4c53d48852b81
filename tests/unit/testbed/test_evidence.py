"""The evidence of sessions, and removing reports."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from testbed import evidence, paths


@pytest.mark.parametrize(("age_seconds", "kept"), [(-60, False), (60, True)])
@pytest.mark.parametrize("name", ["consistency.json", "performance/test_speed.json"])
def test_collect_keeps_only_reports_of_this_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age_seconds: int, kept: bool, name: str
) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    started = datetime.now(UTC)
    folder = evidence.folder_of("e2e")
    report = folder / name
    report.parent.mkdir(exist_ok=True)
    report.write_text("{}")
    os.utime(report, times=(started.timestamp() + age_seconds,) * 2)
    assert evidence.collect("e2e", "x", started) == folder
    assert report.exists() is kept


def test_remove_reports_leaves_everything_else(tmp_path: Path) -> None:
    for name in ("reports/evidence/e2e/junit.xml", "htmlcov/index.html", "screenshots/login.png", "src/a.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "test-results.xml").write_text("")
    evidence.remove_reports(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["src"]
    evidence.remove_reports(tmp_path)


@pytest.mark.parametrize("name", ["reports/", "htmlcov/", "screenshots/", "test-results.xml"])
def test_reports_are_ignored_by_git(name: str) -> None:
    assert name in (paths.ROOT / ".gitignore").read_text().splitlines()
