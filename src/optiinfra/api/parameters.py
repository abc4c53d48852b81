"""Parameters of each recommendation type: what exactly it changes. Prices in dollars per hour."""

from collections.abc import Mapping

from pydantic import Field

from optiinfra.api.common import FreeJson, Moment, Wire
from optiinfra.domain.recommendation import RecommendationType


class SpotMigrationParameters(Wire):
    """A spot migration of `count` instances of one type."""

    deployment: str
    provider: str
    region: str
    instance_type: str
    count: int
    source_instance_ids: list[str]
    spot_price: float
    ondemand_price: float
    interruptions_per_month: float


class EngineTuningParameters(Wire):
    """All engine arguments that a deployment should have, by vLLM's names."""

    deployment: str
    engine_args: FreeJson
    source_instance_ids: list[str]


class IdleShutdownParameters(Wire):
    """Instances of one cloud account that have served no deployment since `idle_since`.

    `hourly_cost` is the sum of all instances.
    """

    provider: str
    region: str
    instance_ids: list[str] = Field(min_length=1)
    idle_since: Moment
    hourly_cost: float


Parameters = SpotMigrationParameters | EngineTuningParameters | IdleShutdownParameters

PARAMETERS: Mapping[RecommendationType, type[Parameters]] = {
    "spot_migration": SpotMigrationParameters,
    "engine_tuning": EngineTuningParameters,
    "idle_shutdown": IdleShutdownParameters,
}
"""The parameters of each type that can be executed."""
