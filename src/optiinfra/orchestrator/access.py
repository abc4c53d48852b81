"""Authorization: first the caller's kind and role (403), then the owner of the resource (404, as for an unknown id)."""

from optiinfra.kit.auth import Principal
from optiinfra.orchestrator.errors import Forbidden, NotFound

ALL_ROLES = ("owner", "approver", "viewer")
APPROVERS = ("owner", "approver")
OWNERS = ("owner",)


def require_user(principal: Principal, roles: tuple[str, ...] = ALL_ROLES) -> str:
    """The customer whose user or API key is calling. Raises Forbidden unless it has one of these roles."""
    if principal.kind not in ("user", "api_key") or principal.customer_id is None:
        raise Forbidden("only a customer's user may do this")
    if principal.role not in roles:
        raise Forbidden(f"this needs the role {' or '.join(roles)}; yours is {principal.role}")
    return principal.customer_id


def require_person(principal: Principal) -> None:
    """Raises Forbidden unless a user who is signed in is calling: an API key has no session and no account."""
    require_kind(principal, "user")


def require_tenant(principal: Principal, customer_id: str, roles: tuple[str, ...] = ALL_ROLES) -> str:
    """Like `require_user`, but only for the caller's own customer: NotFound for any other."""
    if require_user(principal, roles) != customer_id:
        raise NotFound("customer")
    return customer_id


def require_tenant_or_admin(principal: Principal, customer_id: str, roles: tuple[str, ...] = ALL_ROLES) -> None:
    """Like `require_tenant`, but admits the platform's administrator too."""
    if principal.kind != "admin":
        require_tenant(principal, customer_id, roles)


def require_kind(principal: Principal, *kinds: str) -> None:
    """Raises Forbidden for callers of other kinds."""
    if principal.kind not in kinds:
        raise Forbidden(f"only {' or '.join(kinds)} may do this")
