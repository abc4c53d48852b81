import pytest

from optiinfra.domain.inventory import CloudAccountStatus, InventoryStatus, inventory_status

DISCOVERING, DISCOVERED, FAILED = CloudAccountStatus


@pytest.mark.parametrize(
    ("accounts", "status"),
    [
        ([], "pending"),
        ([DISCOVERED, DISCOVERED], "discovered"),
        ([DISCOVERED, DISCOVERING], "discovering"),
        ([DISCOVERED, DISCOVERING, FAILED], "failed"),
    ],
)
def test_inventory_status_of_accounts_is_the_least_complete(accounts: list[CloudAccountStatus], status: str) -> None:
    assert inventory_status(accounts) is InventoryStatus(status)
