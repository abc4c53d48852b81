"""Authorization: first the caller's kind and role (403), then the owner of the resource (404, as for an unknown id).

The types below declare who may call a route: FastAPI checks them before it validates parameters and body (422), but not
before it finds that a body is no JSON.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from optiinfra.kit.auth import Principal, current_principal
from optiinfra.orchestrator.errors import Forbidden, NotFound

ALL_ROLES = ("owner", "approver", "viewer")
APPROVERS = ("owner", "approver")
OWNERS = ("owner",)


def _require_kind(principal: Principal, kinds: tuple[str, ...]) -> None:
    if principal.kind not in kinds:
        raise Forbidden(f"only {' or '.join(kinds)} may do this")


@dataclass(frozen=True, slots=True)
class Caller:
    """A customer's user or API key: the customer's id, and that of the user or key."""

    customer_id: str
    subject: str


def _require_role(principal: Principal, roles: tuple[str, ...]) -> Caller:
    if principal.kind not in ("user", "api_key") or principal.customer_id is None:
        raise Forbidden("only a customer's user may do this")
    if principal.role not in roles:
        raise Forbidden(f"this needs the role {' or '.join(roles)}; yours is {principal.role}")
    return Caller(principal.customer_id, principal.subject)


def _of_kind(*kinds: str) -> Callable[[HTTPConnection], Awaitable[Principal]]:
    async def check(connection: HTTPConnection) -> Principal:
        principal = current_principal(connection)
        _require_kind(principal, kinds)
        return principal

    return check


def _with_role(*roles: str) -> Callable[[HTTPConnection], Awaitable[Caller]]:
    async def check(connection: HTTPConnection) -> Caller:
        return _require_role(current_principal(connection), roles)

    return check


def _own(
    roles: tuple[str, ...], *, admin: bool = False, api_keys: bool = True
) -> Callable[[HTTPConnection, str], Awaitable[str]]:
    async def check(connection: HTTPConnection, customer_id: str) -> str:
        principal = current_principal(connection)
        if admin and principal.kind == "admin":
            return customer_id
        if principal.kind == "api_key" and not api_keys:
            raise Forbidden("this needs a user; an API key may not do it")
        if _require_role(principal, roles).customer_id != customer_id:
            raise NotFound("customer")
        return customer_id

    return check


AnyUser = Annotated[Caller, Depends(_with_role(*ALL_ROLES))]
Approver = Annotated[Caller, Depends(_with_role(*APPROVERS))]
Person = Annotated[Principal, Depends(_of_kind("user"))]
"""A user who is signed in: an API key has no session and no account."""
Admin = Annotated[Principal, Depends(_of_kind("admin"))]
Agent = Annotated[Principal, Depends(_of_kind("agent"))]
Enrolment = Annotated[Principal, Depends(_of_kind("enrolment"))]
Runtime = Annotated[Principal, Depends(_of_kind("runtime"))]
UserOrAdmin = Annotated[Principal, Depends(_of_kind("admin", "user", "api_key"))]

OwnCustomer = Annotated[str, Depends(_own(ALL_ROLES))]
"""The id of a customer in the path, which must be the caller's own."""
ApproversCustomer = Annotated[str, Depends(_own(APPROVERS))]
OwnersCustomer = Annotated[str, Depends(_own(OWNERS))]
OwnCustomerOrAdmin = Annotated[str, Depends(_own(ALL_ROLES, admin=True))]
ApprovingUsersCustomer = Annotated[str, Depends(_own(APPROVERS, api_keys=False))]
"""Not for API keys: one that leaks must not raise the customer's limits, nor cost all data."""
ApprovingUsersCustomerOrAdmin = Annotated[str, Depends(_own(APPROVERS, admin=True, api_keys=False))]
