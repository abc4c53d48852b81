"""Summaries of analyses, which have a limited length."""

from optiinfra.agents.base.summary import summary_of
from optiinfra.api.common import LONGEST_PROSE


def test_summary_lists_the_findings_or_says_that_there_are_none() -> None:
    assert summary_of([], "nothing yet") == "nothing yet"
    assert summary_of(["a: one", "b: two"], "nothing yet") == "a: one; b: two"


def test_summary_that_is_too_long_counts_what_it_leaves_out() -> None:
    findings = [f"{number:04}: " + "x" * 94 for number in range(2_000)]
    summary = summary_of(findings, "")
    assert LONGEST_PROSE - 300 < len(summary) <= LONGEST_PROSE
    *listed, rest = summary.split("; ")
    assert listed == findings[: len(listed)]
    assert rest == f"and {2_000 - len(listed):,} more"
