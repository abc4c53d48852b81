"""The risk of a recommendation as the platform sees it: automatic approval does not rely on an agent's word."""

from optiinfra.api.agents import Draft
from optiinfra.api.parameters import SpotMigrationParameters
from optiinfra.clouds.price_book import PriceBook, UnknownPriceError
from optiinfra.domain.recommendation import RiskLevel
from optiinfra.domain.risk import LEAST, highest, spot_risk


def with_platform_risk(draft: Draft, book: PriceBook) -> Draft:
    """The draft with the higher of the agent's risk and the platform's."""
    return draft.model_copy(update={"risk_level": highest(draft.risk_level, _risk_of(draft, book))})


def _risk_of(draft: Draft, book: PriceBook) -> RiskLevel:
    if draft.type != "spot_migration":
        return LEAST[draft.type]
    asked = SpotMigrationParameters.model_validate(draft.parameters)
    try:
        rate = book.interruptions_per_month(asked.provider, asked.region, asked.instance_type)
    except UnknownPriceError:
        return "high"
    return highest(LEAST[draft.type], spot_risk(asked.count, rate))
