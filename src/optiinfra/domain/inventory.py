"""Discovery of a customer's cloud accounts."""

from collections.abc import Collection
from enum import StrEnum


class CloudAccountStatus(StrEnum):
    """Whether a cloud account's instances are known."""

    DISCOVERING = "discovering"
    DISCOVERED = "discovered"
    FAILED = "failed"


class InventoryStatus(StrEnum):
    """Whether a customer's whole inventory is known; `pending` without any cloud account."""

    PENDING = "pending"
    DISCOVERING = "discovering"
    DISCOVERED = "discovered"
    FAILED = "failed"


def inventory_status(accounts: Collection[CloudAccountStatus]) -> InventoryStatus:
    """Status of an inventory with these cloud accounts: one failure or one unfinished discovery decides."""
    if not accounts:
        return InventoryStatus.PENDING
    for status in (CloudAccountStatus.FAILED, CloudAccountStatus.DISCOVERING):
        if status in accounts:
            return InventoryStatus(status)
    return InventoryStatus.DISCOVERED
