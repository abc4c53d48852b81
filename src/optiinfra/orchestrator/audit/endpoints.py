"""Routes of the audit log."""

from typing import Annotated

from fastapi import APIRouter, Query

from optiinfra.api.audit import AuditEntry, AuditVerification
from optiinfra.kit.late_bodies import LateBodyRoute
from optiinfra.orchestrator.access import Admin, OwnCustomer
from optiinfra.orchestrator.audit import service
from optiinfra.orchestrator.platform import CurrentPlatform

router = APIRouter(route_class=LateBodyRoute)

LONG_CALLS = ("GET /admin/audit-verification",)

_MAX_SEQ = 2**62


@router.get("/customers/{customer_id}/audit-log")
async def audit_log(
    customer_id: OwnCustomer,
    platform: CurrentPlatform,
    after: Annotated[int, Query(ge=0, le=_MAX_SEQ)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[AuditEntry]:
    """Changes, refused requests and credential events numbered above `after`, in order."""
    return await service.page(platform, customer_id, after, limit)


@router.get("/admin/audit-verification")
async def audit_verification(_admin: Admin, platform: CurrentPlatform) -> AuditVerification:
    """Check that no entry of the audit log has been changed or removed."""
    return await service.verify(platform)
