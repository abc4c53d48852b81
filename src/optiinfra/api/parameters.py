"""Parameters of each recommendation type: what exactly it changes. Prices in dollars per hour."""

from collections.abc import Mapping

from pydantic import Field

from optiinfra.api.common import Finite, FreeJson, Identifier, Moment, Wire
from optiinfra.domain.recommendation import RecommendationType

MOST_INSTANCES = 5_000
"""Instances of one change."""


class SpotMigrationParameters(Wire):
    """A spot migration of `count` instances of one type."""

    deployment: Identifier
    provider: Identifier
    region: Identifier
    instance_type: Identifier
    count: int = Field(ge=1, le=MOST_INSTANCES)
    source_instance_ids: list[Identifier] = Field(max_length=MOST_INSTANCES)
    spot_price: Finite = Field(ge=0.0)
    ondemand_price: Finite = Field(ge=0.0)
    interruptions_per_month: Finite = Field(ge=0.0)


class EngineTuningParameters(Wire):
    """All engine arguments that a deployment should have, by vLLM's names."""

    deployment: Identifier
    engine_args: FreeJson
    source_instance_ids: list[Identifier] = Field(max_length=MOST_INSTANCES)


class IdleShutdownParameters(Wire):
    """Instances of one cloud account that have served no deployment since `idle_since`.

    `hourly_cost` is the sum of all instances.
    """

    provider: Identifier
    region: Identifier
    instance_ids: list[Identifier] = Field(min_length=1, max_length=MOST_INSTANCES)
    idle_since: Moment
    hourly_cost: Finite = Field(ge=0.0)


Parameters = SpotMigrationParameters | EngineTuningParameters | IdleShutdownParameters

PARAMETERS: Mapping[RecommendationType, type[Parameters]] = {
    "spot_migration": SpotMigrationParameters,
    "engine_tuning": EngineTuningParameters,
    "idle_shutdown": IdleShutdownParameters,
}
"""The parameters of each type that can be executed."""
