"""Routes of the audit log."""

from typing import Annotated

from fastapi import APIRouter, Query

from optiinfra.api.audit import END, AuditEntry, AuditVerification
from optiinfra.kit.late_bodies import LateBodyRoute
from optiinfra.orchestrator.access import Admin, OwnCustomer
from optiinfra.orchestrator.audit import service
from optiinfra.orchestrator.platform import CurrentPlatform

router = APIRouter(route_class=LateBodyRoute)

LONG_CALLS = ("GET /admin/audit-verification",)


@router.get("/customers/{customer_id}/audit-log")
async def audit_log(
    customer_id: OwnCustomer,
    platform: CurrentPlatform,
    after: Annotated[int, Query(ge=0, le=END)] = 0,
    before: Annotated[int | None, Query(ge=0, le=END)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[AuditEntry]:
    """Changes, refused requests and credential events numbered above `after`, in order.

    With `before`, only those numbered below it, newest first.
    """
    return await service.page(platform, customer_id, after, before, limit)


@router.get("/admin/audit-verification")
async def audit_verification(_admin: Admin, platform: CurrentPlatform) -> AuditVerification:
    """Check that no entry of the audit log has been changed or removed."""
    return await service.verify(platform)
