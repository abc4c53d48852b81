"""Building: the lines that the contract fixes, and what a failed build says."""

from pathlib import Path

import pytest

from testbed import build
from testbed.build import TARGETS, BuildError, Target

DOMAIN, JSON = Target("domain", ("optiinfra.domain",)), Target("json", (), ("json",))


def test_targets_begin_with_the_six_services() -> None:
    names = [target.name for target in TARGETS]
    assert names[:6] == [
        "orchestrator",
        "cost-agent",
        "performance-agent",
        "resource-agent",
        "application-agent",
        "portal",
    ]
    assert names[6:] == ["runtime", "sandbox", "engines"]


def test_build_all_names_each_target_in_order() -> None:
    lines: list[str] = []
    build.build_all(lines.append, (JSON, DOMAIN), libraries=())
    assert lines == ["Building json... ✓", "Building domain... ✓"]


@pytest.mark.parametrize(
    ("packages", "loads", "reason"),
    [
        (("optiinfra.lost",), (), "^package optiinfra.lost does not exist$"),
        (("optiinfra.domain",), ("testbed.lost",), "(?s)^failing cannot be imported:.*No module named 'testbed.lost'"),
    ],
)
def test_build_all_with_a_failing_target_stops_there(
    packages: tuple[str, ...], loads: tuple[str, ...], reason: str
) -> None:
    lines: list[str] = []
    with pytest.raises(BuildError, match=reason):
        build.build_all(lines.append, (DOMAIN, Target("failing", packages, loads), JSON), libraries=())
    assert lines == ["Building domain... ✓", "Building failing... ✗"]


def test_build_all_with_a_process_that_dies_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deadly_import.py").write_text("import os; os._exit(3)")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BuildError, match="the process that built deadly ended without a result"):
        build.build_all(lambda _line: None, (Target("deadly", (), ("deadly_import",)),), libraries=())
