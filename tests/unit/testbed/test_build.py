"""Building: the lines that the contract fixes, and what a failed build says."""

import pytest

from testbed import build
from testbed.build import HELPERS, BuildError, Target


def test_build_all_prints_the_six_services_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "build", lambda _target: None)
    lines: list[str] = []
    build.build_all(lines.append)
    assert lines[:6] == [
        "Building orchestrator... ✓",
        "Building cost-agent... ✓",
        "Building performance-agent... ✓",
        "Building resource-agent... ✓",
        "Building application-agent... ✓",
        "Building portal... ✓",
    ]
    assert lines[6:] == [f"Building {helper.name}... ✓" for helper in HELPERS]


def test_build_all_with_a_failing_target_stops_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(target: Target) -> None:
        if target.name == "cost-agent":
            raise BuildError("no")

    monkeypatch.setattr(build, "build", fail)
    lines: list[str] = []
    with pytest.raises(BuildError):
        build.build_all(lines.append)
    assert lines == ["Building orchestrator... ✓", "Building cost-agent... ✗"]


def test_build_with_importable_modules_succeeds() -> None:
    build.build(Target("engines", ("testbed.engines",), ("json",)))


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (Target("lost", ("optiinfra.lost",)), "package optiinfra.lost does not exist"),
        (Target("engines", ("testbed.engines",), ("testbed.lost",)), "No module named 'testbed.lost'"),
    ],
)
def test_build_of_something_missing_names_it(target: Target, reason: str) -> None:
    with pytest.raises(BuildError, match=reason):
        build.build(target)
