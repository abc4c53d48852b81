"""What a rule of the cost agent found, and the checks of a customer's preferences that all rules share."""

from dataclasses import dataclass

from optiinfra.api.agents import Draft
from optiinfra.api.customers import Preferences
from optiinfra.domain.recommendation import RiskLevel, within_risk


@dataclass(frozen=True, slots=True)
class Finding:
    """A recommendation, or None where there is nothing to recommend; `summary` says which in a few words."""

    draft: Draft | None
    summary: str


def refused_provider(provider: str, preferences: Preferences) -> str | None:
    """Why the preferences rule out a change at this provider; None when they do not."""
    if provider in preferences.providers:
        return None
    return f"your preferences do not list {provider} among the providers"


def refused_risk(risk: RiskLevel, preferences: Preferences) -> str | None:
    """Why the preferences rule out a change of this risk; None when they do not."""
    if within_risk(risk, preferences.max_risk):
        return None
    return f"the risk is {risk}, above your limit ({preferences.max_risk})"


def correction_note(quantity: str, factor: float, outcomes: int) -> str:
    """The sentence that explains a correction by past outcomes; empty when there are none."""
    if not outcomes:
        return ""
    changes = "a similar change" if outcomes == 1 else f"{outcomes} similar changes"
    return f" {quantity} are corrected by a factor of {factor:.3f}, as measured after {changes} of yours."
