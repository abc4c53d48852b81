"""Deletion of a customer from every store."""

from optiinfra.clouds import connections
from optiinfra.orchestrator.audit.service import record_head, replace_by_tombstone
from optiinfra.orchestrator.background import in_progress
from optiinfra.orchestrator.customers import repository
from optiinfra.orchestrator.durable import delete_workflows
from optiinfra.orchestrator.errors import Conflict, NotFound
from optiinfra.orchestrator.platform import Platform


async def delete_customer(platform: Platform, customer_id: str, actor_kind: str) -> None:
    """Delete a customer everywhere. Raises Conflict while an optimization runs, NotFound when there is none.

    First the row that everything else refers to, then the data in other stores. Data that arrives meanwhile is
    refused, or deleted by its writer. A `CustomerDeletion` row marks an unfinished deletion: after a crash or an
    outage, recovery or a repeated call finishes it.
    """
    with in_progress(deletion_of(customer_id)):
        async with platform.database.transaction() as session:
            await repository.lock_for_deletion(session, customer_id)
            if (running := await repository.unfinished_optimization(session, customer_id)) is not None:
                raise Conflict(
                    "optimization_running", f"{running} is changing your estate: roll it back or wait until it ends"
                )
            external_id = await repository.delete_row(session, customer_id)
            tombstone = await replace_by_tombstone(session, platform, customer_id, actor_kind) if external_id else None
        if tombstone is not None:
            await record_head(platform, tombstone)
        try:
            await finish_deletion(platform, customer_id)
        finally:
            if external_id is not None:  # not before: workflows may use the credentials until they end
                connections.forget(external_id)
    if external_id is None:
        raise NotFound("customer")


async def finish_deletion(platform: Platform, customer_id: str) -> None:
    """Delete the data of a deleted customer in other stores, then their workflows. Idempotent."""
    with in_progress(deletion_of(customer_id)):
        await platform.telemetry.delete_customer(customer_id)
        await platform.memory.delete_customer(customer_id)
        await delete_workflows(customer_id)
        async with platform.database.transaction() as session:
            await repository.end_deletion(session, customer_id)


def deletion_of(customer_id: str) -> str:
    """The name of a deletion in `background.in_progress`."""
    return f"deletion of {customer_id}"
