"""The coverage summary: its components, their order and the printed lines."""

import subprocess
import sys
from pathlib import Path

import pytest
from coverage import Coverage, CoverageData

from testbed import paths
from testbed.coverage_summary import FIRST, Counts, combine, component, render, rows


def test_component_is_the_folder_or_the_agent() -> None:
    assert component("src/optiinfra/orchestrator/events/service.py") == "orchestrator/"
    assert component("src/optiinfra/agents/cost_agent/analysis.py") == "agents/cost_agent/"
    assert component("src/optiinfra/agents/base/app.py") == "agents/base/"
    assert component("src/optiinfra/agents/__init__.py") == "agents/"
    assert component("src/optiinfra/__init__.py") == "./"


def test_rows_start_with_the_contracts_components_and_end_with_the_total() -> None:
    files = [
        ("src/optiinfra/domain/savings.py", Counts(10, 10)),
        ("src/optiinfra/portal/app.py", Counts(30, 15)),
        ("src/optiinfra/api/common.py", Counts(10, 0)),
    ]
    listed = rows(files)
    assert [name for name, _ in listed] == [*FIRST, "api/", "domain/", "TOTAL"]
    assert dict(listed)["TOTAL"] == Counts(50, 25)


def test_render_prints_a_line_for_each_component_and_the_total() -> None:
    files = [("src/optiinfra/portal/app.py", Counts(8, 6)), ("src/optiinfra/domain/savings.py", Counts(8, 3))]
    assert render(rows(files)).splitlines() == [
        "Coverage Summary:",
        "orchestrator/ 100%",
        "agents/cost_agent/ 100%",
        "agents/perf_agent/ 100%",
        "agents/resource_agent/ 100%",
        "agents/app_agent/ 100%",
        "portal/ 75%",
        "domain/ 37%",
        "-----",
        "TOTAL 56%",
    ]


def test_percent_is_100_only_if_every_statement_ran() -> None:
    assert Counts(1000, 999).percent == 99
    assert Counts(1000, 1000).percent == 100


def test_combine_merges_the_data_of_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Coverage, "html_report", lambda *_, **__: None)
    monkeypatch.chdir(paths.ROOT)  # the data holds paths relative to it
    data = tmp_path / "coverage"
    data.mkdir()
    for number, lines in enumerate(([1, 3], [4])):
        written = CoverageData(basename=str(data / ".coverage"), suffix=f"vm.pid{number}")
        written.add_lines({"src/optiinfra/domain/savings.py": lines})
        written.write()
    target = tmp_path / "evidence" / "coverage.data"
    target.parent.mkdir()
    ((path, counts),) = combine(data, target)
    assert path == "src/optiinfra/domain/savings.py"
    assert 0 < counts.covered <= 3 < counts.statements
    assert target.exists()


def test_templates_are_not_measured(tmp_path: Path) -> None:
    """Coverage cannot parse them, so one of them in the data would fail the summary."""
    script = tmp_path / "render.py"
    script.write_text(
        "from jinja2 import Environment, PackageLoader\n"
        "import optiinfra.domain.savings\n"
        "Environment(loader=PackageLoader('optiinfra.portal')).get_template('base.html').module\n"
    )
    written = tmp_path / "coverage"
    command = [sys.executable, "-m", "coverage", "run", f"--data-file={written}", str(script)]
    subprocess.run(command, cwd=paths.ROOT, check=False, capture_output=True)  # rendering fails without a page's values
    (file,) = tmp_path.glob("coverage.*")
    data = CoverageData(basename=str(file))
    data.read()
    measured = data.measured_files()
    assert "src/optiinfra/domain/savings.py" in measured
    assert [file for file in measured if not file.endswith(".py")] == []
