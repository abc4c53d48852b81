"""Whether the stores and clouds agree with each other."""

from typing import Literal

from optiinfra.api.common import Wire

StoreName = Literal["postgresql", "clickhouse", "qdrant", "redis", "cloud"]


class Dangling(Wire):
    """A reference to what is not there: `id` of kind `kind` in `store` says that there is a `refers_to`.

    Kind `unreachable` is a store or cloud account that could not be asked; `refers_to` says why.
    """

    store: StoreName
    kind: str
    id: str
    refers_to: str


class Consistency(Wire):
    """What was looked at, as counts of references by kind, and every one that dangles."""

    consistent: bool
    checked: dict[str, int]
    dangling: list[Dangling]
