"""The summary of an analysis: one sentence for each finding."""

from collections.abc import Sequence

from optiinfra.api.common import LONGEST_PROSE

_CHARACTERS = LONGEST_PROSE - 100
"""Leaves room for the number of findings that are left out."""


def summary_of(findings: Sequence[str], otherwise: str) -> str:
    """All findings, or as many as fit into an answer; `otherwise` without any."""
    length = 0
    for number, finding in enumerate(findings):
        length += len(finding) + 2
        if length > _CHARACTERS:
            return "; ".join((*findings[:number], f"and {len(findings) - number:,} more"))
    return "; ".join(findings) or otherwise
