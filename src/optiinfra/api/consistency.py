"""References between stores and clouds, and whether they are consistent."""

from typing import Literal

from optiinfra.api.common import Wire

StoreName = Literal["postgresql", "clickhouse", "qdrant", "redis", "cloud"]


class Dangling(Wire):
    """A dangling reference: `id` of kind `kind` in `store` refers to `refers_to`, which does not exist.

    Kind `unreachable` is a store or cloud account that did not answer; `refers_to` says why.
    """

    store: StoreName
    kind: str
    id: str
    refers_to: str


class Consistency(Wire):
    """The number of checked references by kind, and every dangling one."""

    consistent: bool
    checked: dict[str, int]
    dangling: list[Dangling]
