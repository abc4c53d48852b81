"""The fingerprint changes with source and settings; the version is that of git."""

from pathlib import Path

import pytest

from testbed.fingerprint import fingerprint, version


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("src/a.py", "fixtures/estate.yaml", "constraints.txt", "tests/test_a.py", "src/__pycache__/a.pyc"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return tmp_path


def of(tree: Path, *, coverage: bool = False, backend: str = "embedded", fleet_speed: float = 300) -> str:
    return fingerprint(tree, coverage=coverage, backend=backend, fleet_speed=fleet_speed)


@pytest.mark.parametrize("name", ["src/a.py", "fixtures/estate.yaml", "constraints.txt"])
def test_fingerprint_changes_with_source_fixtures_and_pins(tree: Path, name: str) -> None:
    before = of(tree)
    (tree / name).write_text("changed")
    assert of(tree) != before


@pytest.mark.parametrize("name", ["tests/test_a.py", "src/__pycache__/a.pyc"])
def test_fingerprint_ignores_tests_and_bytecode(tree: Path, name: str) -> None:
    before = of(tree)
    (tree / name).write_text("changed")
    assert of(tree) == before


def test_fingerprint_changes_with_a_renamed_file(tree: Path) -> None:
    before = of(tree)
    (tree / "src/a.py").rename(tree / "src/b.py")
    assert of(tree) != before


def test_fingerprint_changes_with_each_setting(tree: Path) -> None:
    assert len({of(tree), of(tree, coverage=True), of(tree, backend="compose"), of(tree, fleet_speed=1)}) == 4


def test_version_outside_git_is_unknown(tmp_path: Path) -> None:
    assert version(tmp_path) == "unknown"
