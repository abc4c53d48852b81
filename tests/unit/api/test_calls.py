"""The calls of the orchestrator's API: each is a route that the orchestrator serves."""

import inspect
import re
from typing import Any, get_type_hints

import pytest
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st

from optiinfra.api import calls
from optiinfra.api.accounts import PasswordChange, Signup
from optiinfra.api.calls import Call
from optiinfra.api.credentials import NewApiKey
from optiinfra.api.customers import Onboard, Preferences
from optiinfra.api.users import AcceptInvitation, Invite
from optiinfra.orchestrator.accounts import endpoints as accounts
from optiinfra.orchestrator.agents import endpoints as agents
from optiinfra.orchestrator.analyses import endpoints as analyses
from optiinfra.orchestrator.audit import endpoints as audit
from optiinfra.orchestrator.credentials import endpoints as credentials
from optiinfra.orchestrator.customers import endpoints as customers
from optiinfra.orchestrator.events import endpoints as events
from optiinfra.orchestrator.inventory import endpoints as inventory
from optiinfra.orchestrator.optimizations import endpoints as optimizations
from optiinfra.orchestrator.recommendations import endpoints as recommendations
from optiinfra.orchestrator.telemetry import endpoints as telemetry
from optiinfra.orchestrator.users import endpoints as users

ARGUMENTS: dict[str, Any] = {
    "after": 3,
    "agent_type": "cost",
    "before": 9,
    "customer_id": "cust_1",
    "limit": 7,
    "metric_type": "throughput",
    "preferences": Preferences(),
}
BODIES: dict[str, Any] = {
    "sign_up": Signup(email="ops@acme.example", company_name="Acme", password="correct-horse-battery"),
    "accept_invitation": AcceptInvitation(token="invite_1", password="correct-horse-battery"),
    "change_password": PasswordChange(current_password="x", new_password="correct-horse-battery"),
    "invite": Invite(email="lee@acme.example", role="viewer"),
    "issue_api_key": NewApiKey(name="nightly report", scope="read"),
    "onboard": Onboard(cloud_provider="aws", region="us-east-1", iam_role_arn="arn:aws:iam::111122223333:role/r"),
}
MODULES = (
    accounts,
    agents,
    analyses,
    audit,
    credentials,
    customers,
    events,
    inventory,
    optimizations,
    recommendations,
    telemetry,
    users,
)
ROUTES = [route for module in MODULES for route in module.router.routes if isinstance(route, APIRoute)]
EVERY = {
    name: function
    for name, function in inspect.getmembers(calls, inspect.isfunction)
    if function.__module__ == calls.__name__ and not name.startswith("_")
}


def example(name: str) -> Call[Any]:
    """The call with example arguments."""
    parameters = inspect.signature(EVERY[name]).parameters
    arguments = ARGUMENTS | {"body": BODIES.get(name)}
    found: Call[Any] = EVERY[name](**{parameter: arguments.get(parameter, "x") for parameter in parameters})
    return found


@pytest.mark.parametrize("name", sorted(EVERY))
def test_call_is_a_route_of_the_orchestrator_with_the_same_response(name: str) -> None:
    call = example(name)
    served = [
        route
        for route in ROUTES
        if call.method in (route.methods or ()) and re.fullmatch(re.sub(r"{\w+}", "[^/]+", route.path), call.path)
    ]
    assert served, f"{call} is not a route of the orchestrator"
    declared = get_type_hints(EVERY[name])["return"].__args__[0]
    assert declared == (served[0].response_model or type(None))
    known = {parameter.name for parameter in served[0].dependant.query_params}
    assert call.query.keys() <= known


@given(st.text(min_size=1))
def test_path_encodes_ids_as_one_segment(text: str) -> None:
    path = calls.optimization(text.encode("utf-8", "replace").decode()).path
    assert re.fullmatch(r"/optimizations/[A-Za-z0-9_.~%-]+", path)
