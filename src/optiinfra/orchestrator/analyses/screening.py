"""What of an agent's drafts is kept, by what the platform knows itself. Pure."""

from collections.abc import Collection

from optiinfra.api.agents import AnalyzeAnswer, Draft
from optiinfra.clouds.price_book import PriceBook
from optiinfra.domain.recommendation import RiskLevel, within_risk
from optiinfra.orchestrator.agents.risk import with_platform_risk


def screened(
    answer: AnalyzeAnswer, book: PriceBook, max_risk: RiskLevel, outcomes: Collection[str]
) -> tuple[list[Draft], str]:
    """The drafts whose risk, as the platform sees it, the customer accepts, and the summary.

    `outcomes` are the ids of the customer's; of others a draft may not say that it resembles them.
    """
    judged = [with_platform_risk(draft, book) for draft in answer.drafts]
    kept = [draft for draft in judged if within_risk(draft.risk_level, max_risk)]
    summary = answer.summary
    if left_out := len(judged) - len(kept):
        summary += f" {left_out} left out: the risk is above your limit ({max_risk})."
    return [_with_known_outcomes(draft, outcomes) for draft in kept], summary


def _with_known_outcomes(draft: Draft, outcomes: Collection[str]) -> Draft:
    known = [outcome for outcome in draft.similar_outcomes if outcome in outcomes]
    return draft.model_copy(update={"similar_outcomes": known})
