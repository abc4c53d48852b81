"""Who may do what: first the caller's kind and role (403), then whose thing it is (404, as if there were none)."""

from optiinfra.kit.auth import Principal
from optiinfra.kit.problems import Problem, not_found

ALL_ROLES = ("owner", "approver", "viewer")
APPROVERS = ("owner", "approver")
OWNERS = ("owner",)


def require_user(principal: Principal, roles: tuple[str, ...] = ALL_ROLES) -> str:
    """The customer whose user is calling, in one of these roles."""
    if principal.kind != "user" or principal.customer_id is None:
        raise Problem(403, "forbidden", "only a customer's user may do this")
    if principal.role not in roles:
        raise Problem(403, "forbidden", f"this needs the role {' or '.join(roles)}; yours is {principal.role}")
    return principal.customer_id


def require_tenant(principal: Principal, customer_id: str, roles: tuple[str, ...] = ALL_ROLES) -> str:
    """As `require_user`, and only for the caller's own customer."""
    if require_user(principal, roles) != customer_id:
        raise not_found("customer")
    return customer_id


def require_tenant_or_admin(principal: Principal, customer_id: str, roles: tuple[str, ...] = ALL_ROLES) -> None:
    """As `require_tenant`, and for the platform's administrator."""
    if principal.kind != "admin":
        require_tenant(principal, customer_id, roles)


def require_kind(principal: Principal, *kinds: str) -> None:
    """Let only callers of these kinds pass."""
    if principal.kind not in kinds:
        raise Problem(403, "forbidden", f"only {' or '.join(kinds)} may do this")
