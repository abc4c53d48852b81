"""Parameters of each type of recommendation: what exactly it would change. Prices in dollars an hour."""

from pydantic import Field

from optiinfra.api.common import FreeJson, Moment, Wire


class SpotMigrationParameters(Wire):
    """What a spot migration changes: `count` instances of one type; prices in dollars an hour."""

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
    """New engine arguments of a deployment, all of them, under vLLM's own names."""

    deployment: str
    engine_args: FreeJson
    source_instance_ids: list[str]


class IdleShutdownParameters(Wire):
    """Instances of one cloud account that serve no deployment, and since when they have been seen to serve none.

    `hourly_cost` is that of all of them together.
    """

    provider: str
    region: str
    instance_ids: list[str] = Field(min_length=1)
    idle_since: Moment
    hourly_cost: float
