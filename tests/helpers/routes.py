"""Who may call which route, as the contract says, and a valid body of each."""

from typing import Any

ANYBODY = {"owner", "approver", "viewer", "approve key", "read key"}
APPROVERS = {"owner", "approver", "approve key"}
APPROVING_USERS = {"owner", "approver"}
OWNERS = {"owner"}
PEOPLE = {"owner", "approver", "viewer"}
RUNTIMES = {"runtime"}
"""Kinds of credentials, as `credentials_of` names them."""

ONBOARD = {"cloud_provider": "aws", "region": "us-east-1", "iam_role_arn": "arn:aws:iam::111122223333:role/r"}
TENANT_ROUTES: dict[str, tuple[set[str], Any]] = {
    "GET /customers/{customer_id}": (ANYBODY, None),
    "DELETE /customers/{customer_id}": (APPROVING_USERS, None),
    "PATCH /customers/{customer_id}/preferences": (APPROVING_USERS, {"paused": True}),
    "GET /customers/{customer_id}/cloud-trust": (OWNERS, None),
    "POST /customers/{customer_id}/onboard": (OWNERS, ONBOARD),
    "POST /customers/{customer_id}/agent-install-command": (OWNERS, None),
    "GET /customers/{customer_id}/agent-tokens": (OWNERS, None),
    "DELETE /customers/{customer_id}/agent-tokens/{token_id}": (OWNERS, None),
    "POST /customers/{customer_id}/api-keys": (OWNERS, {"name": "x", "scope": "read"}),
    "GET /customers/{customer_id}/api-keys": (OWNERS, None),
    "DELETE /customers/{customer_id}/api-keys/{key_id}": (OWNERS, None),
    "POST /customers/{customer_id}/users": (OWNERS, {"email": "new@example.com", "role": "viewer"}),
    "GET /customers/{customer_id}/users": (OWNERS, None),
    "DELETE /customers/{customer_id}/users/{user_id}": (OWNERS, None),
    "DELETE /auth/sessions/{session_id}": (PEOPLE, None),
    "GET /customers/{customer_id}/infrastructure": (ANYBODY, None),
    "GET /customers/{customer_id}/metrics": (ANYBODY, None),
    "POST /customers/{customer_id}/analyze": (APPROVERS, {"agent_type": "cost"}),
    "GET /analyses/{analysis_id}": (ANYBODY, None),
    "GET /customers/{customer_id}/recommendations": (ANYBODY, None),
    "POST /recommendations/{recommendation_id}/approve": (APPROVERS, None),
    "POST /recommendations/{recommendation_id}/reject": (APPROVERS, {"reason": "x"}),
    "GET /customers/{customer_id}/optimizations": (ANYBODY, None),
    "GET /optimizations/{optimization_id}": (ANYBODY, None),
    "POST /optimizations/{optimization_id}/rollback": (APPROVERS, None),
    "GET /customers/{customer_id}/events": (ANYBODY, None),
    "GET /customers/{customer_id}/events/latest": (ANYBODY, None),
    "GET /customers/{customer_id}/audit-log": (ANYBODY, None),
    "POST /agent-runtime/{runtime_id}/telemetry": (RUNTIMES, {"readings": [], "latencies": []}),
    "PUT /agent-runtime/{runtime_id}/inventory": (RUNTIMES, {"deployments": []}),
    "GET /agent-runtime/{runtime_id}/commands": (RUNTIMES, None),
    "POST /agent-runtime/{runtime_id}/commands/{command_id}/result": (RUNTIMES, {"ok": True}),
}
"""Every route about something that a customer has: who may call it for their own, and a valid body."""
OTHER_ROUTES: dict[str, set[str]] = {
    "POST /auth/logout": PEOPLE,
    "GET /auth/me": PEOPLE,
    "POST /auth/password": PEOPLE,
    "GET /auth/sessions": PEOPLE,
    "GET /orchestrator/agents": ANYBODY | {"admin"},
    "POST /orchestrator/agents/register": {"enrolment"},
    "POST /orchestrator/agents/{agent_id}/heartbeat": {"agent"},
    "DELETE /orchestrator/agents/{agent_id}": {"agent"},
    "GET /admin/consistency": {"admin"},
    "GET /admin/audit-verification": {"admin"},
}
"""Who may call the other routes that need a credential."""
ADMINISTERED = {"GET /customers/{customer_id}", "DELETE /customers/{customer_id}"}
"""Routes of a customer that the platform's administrator may call, too."""


def who_may() -> dict[str, set[str]]:
    """The kinds of credentials that may call each route that needs one."""
    of_tenants = {route: allowed for route, (allowed, _) in TENANT_ROUTES.items()}
    return of_tenants | OTHER_ROUTES | {route: of_tenants[route] | {"admin"} for route in ADMINISTERED}
