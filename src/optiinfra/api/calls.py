"""Every call of the orchestrator's HTTP API that customers make: method, path, body and the type of the response.

A call is data. `api.client` sends it, synchronously or asynchronously.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter

from optiinfra.api.accounts import ActiveSession, Identity, Login, PasswordChange, Refresh, SignedUp, Signup, Tokens
from optiinfra.api.agents import Agent
from optiinfra.api.audit import AuditEntry
from optiinfra.api.credentials import AgentToken, ApiKey, InstallCommand, IssuedApiKey, NewApiKey
from optiinfra.api.customers import CloudTrust, Infrastructure, Onboard, Preferences, Started
from optiinfra.api.events import Event, LatestEvent
from optiinfra.api.recommendations import (
    Analysis,
    AnalysisStarted,
    Analyze,
    Approved,
    Optimization,
    Recommendation,
    Reject,
)
from optiinfra.api.telemetry import MetricPoint, MetricType
from optiinfra.api.users import AcceptInvitation, Invite, Invited, Joined, User
from optiinfra.domain.recommendation import AgentType

T = TypeVar("T")

Method = Literal["GET", "POST", "PATCH", "DELETE"]

_MOST = 1000
"""How many entries of a list are asked for where all are shown: the most that the API lists."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call. `path` has its segments encoded, `response` validates the body of a successful response."""

    method: Method
    path: str
    response: TypeAdapter[T]
    body: BaseModel | None = None
    query: Mapping[str, str | int] = field(default_factory=dict)

    def __str__(self) -> str:
        """Method and path, as in logs and error messages."""
        return f"{self.method} {self.path}"


def sign_up(body: Signup) -> Call[SignedUp]:
    """Create a customer and its owner. No token needed."""
    return Call("POST", "/auth/signup", _SIGNED_UP, body)


def login(username: str, password: str) -> Call[Tokens]:
    """Sign in. No token needed."""
    return Call("POST", "/auth/login", _TOKENS, Login(username=username, password=password))


def refresh(refresh_token: str) -> Call[Tokens]:
    """Exchange a refresh token, which can be used once. No token needed."""
    return Call("POST", "/auth/refresh", _TOKENS, Refresh(refresh_token=refresh_token))


def logout() -> Call[None]:
    """End the session that the token belongs to."""
    return Call("POST", "/auth/logout", _NO_CONTENT)


def accept_invitation(body: AcceptInvitation) -> Call[Joined]:
    """Become a user with the token of an invitation. No other token needed."""
    return Call("POST", "/auth/accept-invitation", _JOINED, body)


def identity() -> Call[Identity]:
    """The user of the token."""
    return Call("GET", "/auth/me", _IDENTITY)


def change_password(body: PasswordChange) -> Call[None]:
    """Replace the password, and end the user's other sessions."""
    return Call("POST", "/auth/password", _NO_CONTENT, body)


def sessions() -> Call[list[ActiveSession]]:
    """The user's sessions, the most recently refreshed first."""
    return Call("GET", "/auth/sessions", _SESSIONS, query={"limit": _MOST})


def end_session(session_id: str) -> Call[None]:
    """End one of the user's sessions."""
    return Call("DELETE", _path("auth", "sessions", session_id), _NO_CONTENT)


def update_preferences(customer_id: str, preferences: Preferences) -> Call[Preferences]:
    """Change the fields that are set in `preferences`."""
    return Call("PATCH", _path("customers", customer_id, "preferences"), _PREFERENCES, preferences)


def cloud_trust(customer_id: str) -> Call[CloudTrust]:
    """The policies to paste into the role for the platform."""
    return Call("GET", _path("customers", customer_id, "cloud-trust"), _CLOUD_TRUST)


def onboard(customer_id: str, body: Onboard) -> Call[Started]:
    """Connect a cloud account; its discovery starts in the background."""
    return Call("POST", _path("customers", customer_id, "onboard"), _STARTED, body)


def agent_install_command(customer_id: str) -> Call[InstallCommand]:
    """Issue a token for the customer's runtime."""
    return Call("POST", _path("customers", customer_id, "agent-install-command"), _INSTALL_COMMAND)


def agent_tokens(customer_id: str) -> Call[list[AgentToken]]:
    """The agent tokens that can be used, newest first."""
    return Call("GET", _path("customers", customer_id, "agent-tokens"), _AGENT_TOKENS, query={"limit": _MOST})


def delete_agent_token(customer_id: str, token_id: str) -> Call[None]:
    """End an agent token."""
    return Call("DELETE", _path("customers", customer_id, "agent-tokens", token_id), _NO_CONTENT)


def issue_api_key(customer_id: str, body: NewApiKey) -> Call[IssuedApiKey]:
    """Issue an API key."""
    return Call("POST", _path("customers", customer_id, "api-keys"), _ISSUED_API_KEY, body)


def delete_api_key(customer_id: str, key_id: str) -> Call[None]:
    """End an API key."""
    return Call("DELETE", _path("customers", customer_id, "api-keys", key_id), _NO_CONTENT)


def api_keys(customer_id: str) -> Call[list[ApiKey]]:
    """The API keys that can be used, newest first."""
    return Call("GET", _path("customers", customer_id, "api-keys"), _API_KEYS, query={"limit": _MOST})


def users(customer_id: str) -> Call[list[User]]:
    """The active and invited users, oldest first."""
    return Call("GET", _path("customers", customer_id, "users"), _USERS, query={"limit": _MOST})


def invite(customer_id: str, body: Invite) -> Call[Invited]:
    """Invite somebody to become a user."""
    return Call("POST", _path("customers", customer_id, "users"), _INVITED, body)


def remove_user(customer_id: str, user_id: str) -> Call[None]:
    """Remove a user, or withdraw an invitation."""
    return Call("DELETE", _path("customers", customer_id, "users", user_id), _NO_CONTENT)


def audit_log(customer_id: str, before: int, limit: int) -> Call[list[AuditEntry]]:
    """Entries numbered below `before`, newest first."""
    path = _path("customers", customer_id, "audit-log")
    return Call("GET", path, _AUDIT_ENTRIES, query={"before": before, "limit": limit})


def delete_customer(customer_id: str) -> Call[None]:
    """Delete a customer everywhere."""
    return Call("DELETE", _path("customers", customer_id), _NO_CONTENT)


def infrastructure(customer_id: str) -> Call[Infrastructure]:
    """The discovered instances and deployments."""
    return Call("GET", _path("customers", customer_id, "infrastructure"), _INFRASTRUCTURE)


def metrics(customer_id: str, metric_type: MetricType) -> Call[list[MetricPoint]]:
    """The points of a metric, oldest first."""
    path = _path("customers", customer_id, "metrics")
    return Call("GET", path, _METRIC_POINTS, query={"metric_type": metric_type})


def start_analysis(customer_id: str, agent_type: AgentType) -> Call[AnalysisStarted]:
    """Have an agent look for recommendations."""
    return Call("POST", _path("customers", customer_id, "analyze"), _ANALYSIS_STARTED, Analyze(agent_type=agent_type))


def analysis(analysis_id: str) -> Call[Analysis]:
    """The state of an analysis."""
    return Call("GET", _path("analyses", analysis_id), _ANALYSIS)


def recommendations(customer_id: str, limit: int = 100) -> Call[list[Recommendation]]:
    """Recommendations, newest first."""
    return Call("GET", _path("customers", customer_id, "recommendations"), _RECOMMENDATIONS, query={"limit": limit})


def approve(recommendation_id: str) -> Call[Approved]:
    """Approve a recommendation, which starts its optimization."""
    return Call("POST", _path("recommendations", recommendation_id, "approve"), _APPROVED)


def reject(recommendation_id: str, reason: str) -> Call[Recommendation]:
    """Reject a recommendation."""
    return Call("POST", _path("recommendations", recommendation_id, "reject"), _RECOMMENDATION, Reject(reason=reason))


def optimizations(customer_id: str, limit: int = 100) -> Call[list[Optimization]]:
    """Optimizations, newest first."""
    return Call("GET", _path("customers", customer_id, "optimizations"), _OPTIMIZATIONS, query={"limit": limit})


def optimization(optimization_id: str) -> Call[Optimization]:
    """The state of an optimization."""
    return Call("GET", _path("optimizations", optimization_id), _OPTIMIZATION)


def roll_back(optimization_id: str) -> Call[Optimization]:
    """Start the rollback of an optimization."""
    return Call("POST", _path("optimizations", optimization_id, "rollback"), _OPTIMIZATION)


def events(customer_id: str, after: int = 0, limit: int = 100) -> Call[list[Event]]:
    """Events numbered above `after`, in order."""
    path = _path("customers", customer_id, "events")
    return Call("GET", path, _EVENTS, query={"after": after, "limit": limit})


def latest_event(customer_id: str) -> Call[LatestEvent]:
    """The number of the customer's latest event."""
    return Call("GET", _path("customers", customer_id, "events", "latest"), _LATEST_EVENT)


def agents() -> Call[list[Agent]]:
    """The registered agents."""
    return Call("GET", "/orchestrator/agents", _AGENTS)


def _path(*segments: str) -> str:
    """The path of these segments, each encoded: an id with a slash in it stays one segment."""
    return "".join(f"/{quote(segment, safe='')}" for segment in segments)


_NO_CONTENT: TypeAdapter[None] = TypeAdapter(None)
_AGENT_TOKENS = TypeAdapter(list[AgentToken])
_AGENTS = TypeAdapter(list[Agent])
_ANALYSIS = TypeAdapter(Analysis)
_ANALYSIS_STARTED = TypeAdapter(AnalysisStarted)
_API_KEYS = TypeAdapter(list[ApiKey])
_APPROVED = TypeAdapter(Approved)
_AUDIT_ENTRIES = TypeAdapter(list[AuditEntry])
_CLOUD_TRUST = TypeAdapter(CloudTrust)
_EVENTS = TypeAdapter(list[Event])
_IDENTITY = TypeAdapter(Identity)
_INFRASTRUCTURE = TypeAdapter(Infrastructure)
_INSTALL_COMMAND = TypeAdapter(InstallCommand)
_INVITED = TypeAdapter(Invited)
_ISSUED_API_KEY = TypeAdapter(IssuedApiKey)
_JOINED = TypeAdapter(Joined)
_LATEST_EVENT = TypeAdapter(LatestEvent)
_METRIC_POINTS = TypeAdapter(list[MetricPoint])
_OPTIMIZATION = TypeAdapter(Optimization)
_OPTIMIZATIONS = TypeAdapter(list[Optimization])
_PREFERENCES = TypeAdapter(Preferences)
_RECOMMENDATION = TypeAdapter(Recommendation)
_RECOMMENDATIONS = TypeAdapter(list[Recommendation])
_SESSIONS = TypeAdapter(list[ActiveSession])
_SIGNED_UP = TypeAdapter(SignedUp)
_STARTED = TypeAdapter(Started)
_TOKENS = TypeAdapter(Tokens)
_USERS = TypeAdapter(list[User])
