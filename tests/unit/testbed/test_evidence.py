"""What sessions leave to be judged, and removing it."""

from pathlib import Path

import pytest

from testbed import evidence, paths


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
