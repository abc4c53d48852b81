"""The commands of the guide's appendix, in a copy of this checkout with small tests.

`nox -s NAME` is replaced by `tests.helpers.nox_session`, which uses this virtualenv.
"""

import re
from collections.abc import Iterator

import pytest

from testbed.parts import PARTS
from tests.helpers.project import Done, Project

BROKEN = """
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

def test_restores_weights(): assert not Path("broken").exists()
def test_restores_instances(): assert not Path("broken").exists()
def test_restores_once(): pass
"""
MARKED = """
import pytest

pytestmark = pytest.mark.{mark}

def test_{mark}(environment): assert environment["urls"]
@pytest.mark.slow
def test_{mark}_for_long(): pass
"""
TESTS = {
    "tests/e2e/test_spot_migration.py": """
import pytest

pytestmark = pytest.mark.e2e

def test_complete_spot_migration_workflow(environment): print("■ ran on", environment["name"])
def test_savings(): pass
""",
    "tests/e2e/test_rollback_scenario.py": BROKEN,
    "tests/integration/test_agents.py": MARKED.format(mark="integration"),
    "tests/security/test_tenants.py": MARKED.format(mark="security"),
    "tests/performance/test_reads.py": MARKED.format(mark="performance"),
    "tests/unit/test_rule.py": "def test_rule(): pass\n",
    "tests/contract/test_engine.py": "def test_engine(): pass\n",
}
SPOT = {"test_complete_spot_migration_workflow", "test_savings"}
BREAKABLE = {"test_restores_weights", "test_restores_instances"}
E2E = SPOT | BREAKABLE | {"test_restores_once"}
MARKS = ("integration", "security", "performance")
SYSTEM = E2E | {f"test_{mark}{rest}" for mark in MARKS for rest in ("", "_for_long")}
SUMMARY = r"""
Coverage Summary:
orchestrator/ \d+%
agents/cost_agent/ \d+%
agents/perf_agent/ \d+%
agents/resource_agent/ \d+%
agents/app_agent/ \d+%
portal/ \d+%
(?:[a-z_./]+ \d+%
)*-----
TOTAL \d+%
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"), TESTS)


@pytest.fixture(scope="module")
def environment_name(project: Project) -> Iterator[str]:
    """A running environment of the project."""
    name = "commands"
    started = project.run("invoke", "start-test-env", "--name", name)
    assert started.code == 0, started.output
    yield name
    project.run("invoke", "clean", "--name", name)


@pytest.fixture
def broken(project: Project) -> Iterator[None]:
    """Two tests fail."""
    (project.root / "broken").touch()
    yield
    (project.root / "broken").unlink(missing_ok=True)


def assert_passed(done: Done, tests: set[str]) -> None:
    assert done.code == 0, done.output
    assert done.outcomes == dict.fromkeys(tests, "passed")


def test_pytest_v_lists_every_system_test(project: Project, environment_name: str) -> None:
    done = project.pytest("-v", environment=environment_name)
    assert_passed(done, SYSTEM)
    listed = re.findall(r"^tests/\S+::(\w+) PASSED +\[ *\d+%\]$", done.output, re.MULTILINE)
    assert sorted(listed) == sorted(SYSTEM)
    assert f"environment: {environment_name} (provided by the session); service coverage is off" in done.output


@pytest.mark.usefixtures("broken")
def test_pytest_x_stops_at_the_first_failure(project: Project) -> None:
    everything = project.pytest("tests/e2e/test_rollback_scenario.py")
    assert (everything.code, everything.tests("failed")) == (1, BREAKABLE)
    first = project.pytest("-x", "tests/e2e/test_rollback_scenario.py")
    assert first.code == 1, first.output
    assert len(first.tests("failed")) == 1
    assert "stopping after 1 failures" in first.output


def test_pytest_k_runs_tests_with_the_word_only(project: Project, environment_name: str) -> None:
    assert_passed(project.pytest("-k", "spot", environment=environment_name), SPOT)


def test_pytest_lf_runs_what_failed_last_only(project: Project, broken: None) -> None:
    folder = "tests/e2e/test_rollback_scenario.py"
    assert project.pytest(folder).code == 1
    again = project.pytest("--lf", folder)
    assert (again.code, again.outcomes) == (1, dict.fromkeys(BREAKABLE, "failed"))
    (project.root / "broken").unlink()
    assert_passed(project.pytest("--lf", folder), BREAKABLE)


def test_pytest_of_a_file_runs_its_tests_only(project: Project, environment_name: str) -> None:
    done = project.pytest("tests/e2e/test_spot_migration.py", "-v", environment=environment_name)
    assert_passed(done, SPOT)


def test_pytest_of_a_function_runs_it_on_an_environment_of_its_own(project: Project) -> None:
    before = project.leftovers()
    test = "test_complete_spot_migration_workflow"
    done = project.pytest(f"tests/e2e/test_spot_migration.py::{test}", "-v")
    assert_passed(done, {test})
    assert re.search(
        r"^environment: pytest-\d+ \(started for this run and stopped after it\)", done.output, re.MULTILINE
    )
    assert project.leftovers() == before


def test_health_check_shows_every_part_of_a_running_environment(project: Project, environment_name: str) -> None:
    done = project.run("invoke", "health-check", "--name", environment_name)
    assert done.code == 0, done.output
    healthy = re.findall(r"^ *(\S+) +\S+ +healthy ", done.output, re.MULTILINE)
    assert healthy == [part.name for part in PARTS]
    absent = project.run("invoke", "health-check", "--name", "absent")
    assert absent.code == 1
    assert "there is no environment 'absent'" in absent.output


def test_clean_removes_a_running_environment_and_reports(project: Project) -> None:
    before = project.leftovers()
    assert project.run("invoke", "start-test-env", "--name", "cleaned").code == 0
    assert project.leftovers() != before
    results = project.root / "test-results.xml"
    results.touch()
    done = project.run("invoke", "clean", "--name", "cleaned")
    assert done.code == 0, done.output
    assert project.leftovers() == before
    results.touch()
    assert project.run("invoke", "clean", "--name", "cleaned", "--reports").code == 0
    assert not results.exists()


@pytest.mark.usefixtures("broken")
def test_nox_e2e_runs_the_scenarios_with_output_and_fails_with_them(project: Project) -> None:
    before = project.leftovers()
    done = project.run("tests.helpers.nox_session", "e2e")
    assert done.code != 0
    assert (done.tests("failed"), done.tests("passed")) == (BREAKABLE, E2E - BREAKABLE), done.output
    assert re.search(r"^.*■ ran on e2e-\d+$", done.output, re.MULTILINE), done.output
    assert project.leftovers() == before


def test_nox_fast_leaves_out_slow_e2e_and_performance_tests(project: Project) -> None:
    before = project.leftovers()
    done = project.run("tests.helpers.nox_session", "fast")
    assert_passed(done, {"test_rule", "test_engine", "test_integration", "test_security"})
    assert "e2e and performance tests do not run here" in done.output
    assert project.leftovers() == before


def test_nox_test_runs_all_system_tests_and_ends_with_their_coverage(project: Project) -> None:
    before = project.leftovers()
    done = project.run("tests.helpers.nox_session", "test")
    assert_passed(done, SYSTEM)
    assert set(re.findall(r"^[\d.]+s call +tests/\S+::(\w+)$", done.output, re.MULTILINE)) == SYSTEM
    assert re.search(SUMMARY, done.output), done.output
    assert f"{len(SYSTEM)} of 43 system tests exist so far" in done.output
    assert (project.root / "htmlcov" / "index.html").exists()
    assert project.leftovers() == before
