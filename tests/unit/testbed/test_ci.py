"""The CI matrix: which jobs there are, and that the workflow runs nothing but our own commands."""

import re
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from testbed import ci, paths

WORKFLOW = paths.ROOT / ".github" / "workflows" / "e2e-tests.yml"
PYTHONS = ["3.11", "3.13"]


def listed(name: str, *tags: str) -> dict[str, Any]:
    return {"name": name, "session": name, "tags": list(tags)}


def test_matrix_has_a_job_for_each_backend_and_python_that_a_session_asks_for() -> None:
    jobs = ci.matrix(
        [listed("e2e", "backends"), listed("unit", "pythons"), listed("lint"), listed("bench", "manual")], PYTHONS
    )
    assert [(job["name"], job["session"], job["backend"], job["python"]) for job in jobs] == [
        ("e2e embedded", "e2e", "embedded", "3.11"),
        ("e2e compose", "e2e", "compose", "3.11"),
        ("unit 3.11", "unit", "embedded", "3.11"),
        ("unit 3.13", "unit", "embedded", "3.13"),
        ("lint", "lint", "embedded", "3.11"),
    ]
    assert {job["arguments"] for job in jobs} == {""}


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"session": "unit"}, ["unit 3.11", "unit 3.13"]),
        ({"backend": "compose"}, ["e2e compose"]),
        ({"session": "unit", "python": "3.13"}, ["unit 3.13"]),
    ],
)
def test_matrix_chosen_by_hand_has_these_jobs_only(chosen: dict[str, str], expected: list[str]) -> None:
    jobs = ci.matrix([listed("e2e", "backends"), listed("unit", "pythons")], PYTHONS, **chosen)  # type: ignore[arg-type]
    assert [job["name"] for job in jobs] == expected


def test_matrix_without_a_match_names_what_was_chosen() -> None:
    with pytest.raises(ValueError, match="no job of the matrix matches e2e, nomad"):
        ci.matrix([listed("e2e")], PYTHONS, session="e2e", backend="nomad")


def test_matrix_of_a_change_tries_its_mutants_only() -> None:
    jobs = ci.matrix([listed("mutants"), listed("lint")], PYTHONS, every_mutant=False)
    assert [(job["session"], job["arguments"]) for job in jobs] == [("mutants", "--changed"), ("lint", "")]


def test_matrix_of_this_checkout_has_every_session_but_the_manual_ones() -> None:
    found = ci.sessions()
    jobs = ci.matrix(found, ci.pythons())
    both = {"test", "e2e", "integration", "performance", "security", "fast"}
    assert {job["session"] for job in jobs if job["backend"] == "compose"} == both
    assert {job["session"] for job in jobs} == {each["name"] for each in found} - {"bench"}
    assert both | {"unit", "platform", "mutants", "lint", "typecheck"} <= {job["session"] for job in jobs}
    names = [job["name"] for job in jobs]
    assert len(names) == len(set(names))


def workflow() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())
    return document


def test_workflow_runs_only_nox_and_invoke() -> None:
    commands = [step["run"] for job in workflow()["jobs"].values() for step in job["steps"] if "run" in step]
    assert len(commands) >= 4
    for command in commands:
        assert re.fullmatch(r"(nox|invoke) [^;&|\n]+", command), command


def test_workflow_pins_every_action_by_commit() -> None:
    for file in (WORKFLOW, paths.ROOT / ".github" / "actions" / "setup" / "action.yml"):
        used = re.findall(r"uses: (\S+)(?: # (\S+))?", file.read_text())
        assert used
        for action, version in used:
            pinned = re.fullmatch(r"[^@]+@(sha256:)?[0-9a-f]{40,64}", action)
            assert action.startswith("./") or (pinned and (version.startswith("v") or "docker://" in action)), action


def test_workflow_has_the_guides_names_and_triggers() -> None:
    document = workflow()
    assert document["name"] == "E2E Tests"
    triggers = cast("dict[Any, Any]", document)[True]  # YAML 1.1 reads `on` as a truth value
    assert set(triggers) == {"pull_request", "merge_group", "schedule", "push", "workflow_dispatch"}
    assert triggers["push"]["tags"] == ["v*-rc*", "v*-beta*", "v*-alpha*"]
    assert set(triggers["workflow_dispatch"]["inputs"]) == {"session", "backend", "python"}
    names = [step.get("name") for step in document["jobs"]["test"]["steps"]]
    assert {"Run E2E Tests", "Upload Coverage"} <= set(names)


def test_workflow_jobs_have_a_timeout_and_few_permissions_and_one_requires_all_others() -> None:
    document = workflow()
    assert document["permissions"] == {}
    for name, job in document["jobs"].items():
        assert job["timeout-minutes"] <= 90, name
        assert job["permissions"] in ({}, {"contents": "read"}), name
    required = document["jobs"]["required"]
    assert required["if"] == "always()"
    assert set(required["needs"]) == set(document["jobs"]) - {"required", "notify"}


def test_summary_counts_results_and_names_what_did_not_pass(tmp_path: Path) -> None:
    results = tmp_path / "test-results.xml"
    results.write_text(
        '<testsuites><testsuite><testcase classname="tests.a" name="test_one"/>'
        '<testcase classname="tests.a" name="test_two"><failure message="no"/></testcase>'
        '<testcase classname="tests.b" name="test_three"><skipped/></testcase></testsuite></testsuites>'
    )
    assert ci.summary("e2e compose", results).splitlines() == [
        "### e2e compose",
        "",
        "1 passed, 1 failure, 1 skipped",
        "",
        "- `tests.a::test_two` (failure)",
        "- `tests.b::test_three` (skipped)",
    ]
    assert "No test was run." in ci.summary("lint", tmp_path / "missing.xml")


def test_output_is_set_in_github_actions_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_OUTPUT", raising=False)
    ci.set_output("jobs", "[]")
    output = tmp_path / "output"
    monkeypatch.setenv("GITHUB_OUTPUT", str(output))
    ci.set_output("jobs", "[]")
    assert output.read_text() == "jobs=[]\n"
