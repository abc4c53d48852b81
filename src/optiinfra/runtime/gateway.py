"""The customer's inference gateway and the engines behind it, over HTTP."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import Field, TypeAdapter, ValidationError

from optiinfra.api.common import FreeJson, Identifier, Moment, Text, Wire
from optiinfra.api.customers import MOST_REPLICAS, DiscoveredDeployment, Replica, Slo, Weights
from optiinfra.api.runtimes import MOST_DEPLOYMENTS
from optiinfra.kit import http
from optiinfra.runtime.validation_errors import describe

T = TypeVar("T")
_PROMPTING_CLIENTS = 16


class GatewayError(Exception):
    """The gateway refused or did not answer; the text names the call and the answer."""


class GatewayRefusedError(GatewayError):
    """The gateway answered with a client error (4xx), so the same call would fail again."""


class GatewayReplica(Replica):
    """One engine as the gateway shows it."""

    weight: float
    requests_running: float


class GatewayDeployment(Wire):
    """One deployment as the gateway shows it; `speed` in simulated seconds per second, counters since its creation."""

    name: Text
    model: Identifier
    provider: Identifier
    region: Identifier
    engine_args: FreeJson
    slo: Slo
    interruptible: bool
    speed: float
    weights: Weights
    requests_served: int
    requests_dropped: int
    replicas: list[GatewayReplica] = Field(max_length=MOST_REPLICAS)

    def discovered(self) -> DiscoveredDeployment:
        """The deployment as it is reported to the platform."""
        return DiscoveredDeployment(
            name=self.name,
            model=self.model,
            provider=self.provider,
            region=self.region,
            engine_args=self.engine_args,
            weights=self.weights,
            slo=self.slo,
            interruptible=self.interruptible,
            replicas=[Replica.model_validate(replica.model_dump()) for replica in self.replicas],
        )

    def replica(self, replica_id: str) -> GatewayReplica | None:
        """The replica with this id, if it exists."""
        return next((replica for replica in self.replicas if replica.replica_id == replica_id), None)


class HistoryPoint(Wire):
    """One hour of a deployment from the customer's own monitoring."""

    deployment: str
    timestamp: Moment
    throughput: float
    p95_latency_ms: float
    gpu_utilization: float


class _NewReplica(Wire):
    replica_id: str


class _Message(Wire):
    content: str | None = None


class _Choice(Wire):
    message: _Message


class _Completion(Wire):
    choices: list[_Choice] = Field(min_length=1)


_DEPLOYMENT = TypeAdapter(GatewayDeployment)
_DEPLOYMENTS = TypeAdapter(Annotated[list[GatewayDeployment], Field(max_length=MOST_DEPLOYMENTS)])
_HISTORY = TypeAdapter(list[HistoryPoint])
_NEW_REPLICA, _COMPLETION = TypeAdapter(_NewReplica), TypeAdapter(_Completion)


class Gateway:
    """One customer's part of the gateway. Every call raises GatewayError if it fails."""

    def __init__(self, url: str, customer_id: str, *, client: httpx.AsyncClient | None = None) -> None:
        self._http = client or http.client(url, timeout=10.0)
        # Golden prompts need many connections at once, and httpx gets slower with each connection of a client.
        self._prompting = [client] if client else [http.client(url) for _ in range(_PROMPTING_CLIENTS)]
        self._next_prompting = itertools.cycle(self._prompting)
        self._fleet = f"/fleet/{customer_id}"

    async def deployments(self) -> list[GatewayDeployment]:
        """Every deployment of the customer."""
        return _parse(await self._call("GET", "/deployments"), _DEPLOYMENTS)

    async def deployment(self, name: str) -> GatewayDeployment:
        """One deployment."""
        return _parse(await self._call("GET", f"/deployments/{_segment(name)}"), _DEPLOYMENT)

    async def history(self) -> list[HistoryPoint]:
        """Hourly points of the last seven days."""
        return _parse(await self._call("GET", "/history"), _HISTORY)

    async def set_weights(self, name: str, weights: Mapping[str, float], key: str) -> None:
        """Set the weights of a deployment's replicas; they sum to 1."""
        await self._call("PUT", f"/deployments/{_segment(name)}/weights", json=dict(weights), key=key)

    async def add_replica(self, name: str, instance_id: str, engine_args: Mapping[str, Any] | None, key: str) -> str:
        """Start an engine on an instance with weight 0; its id, before it is ready."""
        body = {"instance_id": instance_id, "engine_args": engine_args}
        answer = await self._call("POST", f"/deployments/{_segment(name)}/replicas", json=body, key=key)
        return _parse(answer, _NEW_REPLICA).replica_id

    async def remove_replica(self, name: str, replica_id: str, key: str) -> None:
        """Remove an engine; one that does not exist is no error."""
        await self._call(
            "DELETE", f"/deployments/{_segment(name)}/replicas/{_segment(replica_id)}", key=key, accepted=(404,)
        )

    async def set_engine_args(self, replica_id: str, engine_args: Mapping[str, Any], key: str) -> None:
        """Restart an engine with these arguments; returns before it is ready."""
        await self._call("PUT", f"/replicas/{_segment(replica_id)}/engine-args", json=dict(engine_args), key=key)

    async def health(self, replica_id: str) -> int:
        """The status code of the engine's own health route: 200 once it is ready."""
        return (
            await self._call("GET", f"/replicas/{_segment(replica_id)}/health", accepted=range(400, 600))
        ).status_code

    async def exposition(self, replica_id: str) -> str | None:
        """The engine's metrics in Prometheus exposition format; None while it has none."""
        answer = await self._call("GET", f"/replicas/{_segment(replica_id)}/metrics", accepted=(404, 503))
        return answer.text if answer.status_code == 200 else None

    async def complete(
        self, replica_id: str, model: str, messages: Sequence[Mapping[str, str]], seed: int, timeout: float = 120.0
    ) -> str:
        """The engine's answer to a conversation, sampled with that seed."""
        body = {"model": model, "messages": list(messages), "seed": seed, "max_tokens": 256}
        path = f"/replicas/{_segment(replica_id)}/v1/chat/completions"
        answer = await self._call("POST", path, json=body, timeout=timeout, client=next(self._next_prompting))
        return _parse(answer, _COMPLETION).choices[0].message.content or ""

    async def close(self) -> None:
        """Close the connections."""
        for client in (self._http, *self._prompting):
            await client.aclose()

    async def _call(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        key: str | None = None,
        accepted: Sequence[int] = (),
        timeout: float | None = None,
        client: httpx.AsyncClient | None = None,
    ) -> httpx.Response:
        headers = {"Idempotency-Key": key} if key else {}
        extra: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        url = f"{self._fleet}{path}"
        try:
            answer = await (client or self._http).request(method, url, json=json, headers=headers, **extra)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise GatewayError(f"{method} {url}: {type(error).__name__}: {error}") from error
        if not answer.is_success and answer.status_code not in accepted:
            failed = GatewayRefusedError if answer.is_client_error else GatewayError
            raise failed(f"{method} {url}: {answer.status_code} {answer.text[:300]}")
        return answer


def _segment(name: str) -> str:
    """A name as one segment of a path, whatever characters it has."""
    return quote(name, safe="")


def _parse(answer: httpx.Response, shape: TypeAdapter[T]) -> T:
    try:
        return shape.validate_json(answer.content)
    except ValidationError as error:
        call = f"{answer.request.method} {answer.request.url.path}"
        raise GatewayError(f"{call}: {answer.status_code}, but the body is invalid: {describe(error)[:300]}") from error
