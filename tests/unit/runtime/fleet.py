"""The HTTP peers of the runtime in memory: a gateway with one deployment, and a platform that issues commands."""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from optiinfra.api.runtimes import Command, CommandResult
from optiinfra.runtime.gateway import Gateway
from optiinfra.runtime.platform import Platform

HISTORY = {
    "deployment": "chat",
    "timestamp": "2026-11-01T10:00:00Z",
    "throughput": 2.0,
    "p95_latency_ms": 900.0,
    "gpu_utilization": 0.5,
}


def exposition(finished: int, slow: int = 0, running: float = 3.0) -> str:
    """The metrics of an engine that finished so many requests, `slow` of them in over two seconds."""
    fast = finished - slow
    return f"""# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0"}} {running}
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0"}} 1.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{engine="0"}} 0.25
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{{engine="0"}} {800.0 * finished}
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{{engine="0"}} {200.0 * finished}
# TYPE vllm:request_success_total counter
vllm:request_success_total{{engine="0",finished_reason="stop"}} {finished - 1.0}
vllm:request_success_total{{engine="0",finished_reason="length"}} 1.0
# TYPE vllm:e2e_request_latency_seconds histogram
vllm:e2e_request_latency_seconds_bucket{{engine="0",le="0.5"}} 0.0
vllm:e2e_request_latency_seconds_bucket{{engine="0",le="1.0"}} {fast}
vllm:e2e_request_latency_seconds_bucket{{engine="0",le="2.0"}} {fast}
vllm:e2e_request_latency_seconds_bucket{{engine="0",le="+Inf"}} {finished}
vllm:e2e_request_latency_seconds_count{{engine="0"}} {finished}
vllm:e2e_request_latency_seconds_sum{{engine="0"}} {0.75 * fast + 9.0 * slow}
# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{{gpu="0"}} 40
DCGM_FI_DEV_GPU_UTIL{{gpu="1"}} 60
"""


@dataclass
class FakeGateway:
    """The customer's gateway. `seen` are the calls: method, path, idempotency key."""

    weights: dict[str, float] = field(default_factory=lambda: {"r1": 0.5, "r2": 0.5})
    finished: dict[str, int] = field(default_factory=lambda: {"r1": 100, "r2": 100})
    running: list[float] = field(default_factory=lambda: [0.0])
    health: list[int] = field(default_factory=lambda: [200])
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)
    prompts: list[dict[str, Any]] = field(default_factory=list)
    engine_args: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By replica; a replica that is not in it has none."""
    starting: dict[str, int] = field(default_factory=dict)
    """By replica: for how many more reads it shows as starting. A restart sets it to `start_reads`."""
    start_reads: int = 2
    requests_at_restart: list[float] = field(default_factory=list)
    """Requests that were running at each restart, as last read."""
    refuse_engine_args: bool = False
    speed: float = 100.0
    others: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=lambda: [HISTORY])
    answers: dict[str, bytes] = field(default_factory=dict)
    """By the end of a path: the body that is answered there instead."""

    def deployment(self) -> dict[str, Any]:
        self._busy = busy = self.running.pop(0) if len(self.running) > 1 else self.running[0]
        return {
            "name": "chat",
            "model": "meta-llama/Llama-3.1-8B-Instruct",
            "provider": "aws",
            "region": "us-east-1",
            "engine_args": {},
            "slo": {"p95_latency_ms": 1000, "quality": 0.9},
            "interruptible": True,
            "traffic": {"requests_per_second": 1},
            "speed": self.speed,
            "weights": self.weights,
            "requests_served": 200,
            "requests_dropped": 2,
            "replicas": [
                {
                    "replica_id": replica_id,
                    "instance_id": f"i-{replica_id}",
                    "instance_type": "g5.xlarge",
                    "state": self._state(replica_id),
                    "weight": weight,
                    "requests_running": busy,
                    "engine_args": self.engine_args.get(replica_id, {}),
                }
                for replica_id, weight in self.weights.items()
            ],
        }

    def _state(self, replica_id: str) -> str:
        left = self.starting.get(replica_id, 0)
        self.starting[replica_id] = max(0, left - 1)
        return "starting" if left else "ready"

    def __call__(self, request: httpx.Request) -> httpx.Response:  # noqa: C901  one case per route
        path = request.url.path.removeprefix("/fleet/cust_1")
        self.seen.append((request.method, path, request.headers.get("idempotency-key")))
        for end, answer in self.answers.items():
            if path.endswith(end):
                return httpx.Response(200, content=answer)
        match request.method, path.strip("/").split("/"):
            case "GET", ["deployments"]:
                return httpx.Response(200, json=[self.deployment(), *self.others])
            case "GET", ["deployments", "chat"]:
                return httpx.Response(200, json=self.deployment())
            case "GET", ["history"]:
                return httpx.Response(200, json=self.history)
            case "PUT", ["deployments", "chat", "weights"]:
                self.weights = json.loads(request.content)
                return httpx.Response(200, json=self.weights)
            case "POST", ["deployments", "chat", "replicas"]:
                if json.loads(request.content)["instance_id"] == "i-gone":
                    return httpx.Response(409, json={"detail": "i-gone is not running"})
                self.weights["r3"] = 0.0
                return httpx.Response(201, json={"replica_id": "r3"})
            case "DELETE", ["deployments", "chat", "replicas", replica_id]:
                return httpx.Response(204 if self.weights.pop(replica_id, None) is not None else 404)
            case "PUT", ["replicas", replica_id, "engine-args"]:
                if self.refuse_engine_args:
                    return httpx.Response(422, json={"error": "these arguments do not fit"})
                self.requests_at_restart.append(self._busy)
                self.engine_args[replica_id] = json.loads(request.content)
                self.starting[replica_id] = self.start_reads
                return httpx.Response(200, json={"replica_id": replica_id})
            case "GET", ["replicas", _, "health"]:
                return httpx.Response(self.health.pop(0) if len(self.health) > 1 else self.health[0])
            case "GET", ["replicas", replica_id, "metrics"]:
                return httpx.Response(200, text=exposition(self.finished.get(replica_id, 1)))
            case "POST", ["replicas", replica_id, "v1", "chat", "completions"]:
                body = json.loads(request.content)
                self.prompts.append({"replica_id": replica_id} | body)
                text = f"answer {sum(message['role'] == 'user' for message in body['messages'])}"
                return httpx.Response(200, json={"choices": [{"message": {"role": "assistant", "content": text}}]})
        return httpx.Response(404, text=f"no such route {path}")

    def connect(self) -> Gateway:
        client = httpx.AsyncClient(transport=httpx.MockTransport(self), base_url="http://gateway")
        return Gateway("", "cust_1", client=client)


@dataclass
class FakePlatform:
    """The orchestrator's routes for runtimes. `failures` are the next calls' statuses; 0 refuses the connection."""

    failures: list[int] = field(default_factory=list)
    history_wanted: list[str] = field(default_factory=lambda: ["chat"])
    rejected: str = ""
    """End of the paths that are answered with the status `rejection`."""
    rejection: int = 422
    gone: set[str] = field(default_factory=set)
    """Deployments whose telemetry is refused."""
    attempts: list[str] = field(default_factory=list)
    """The idempotency key of each telemetry call, also of those that failed."""
    deliveries: list[list[Command]] = field(default_factory=list)
    inventories: list[Any] = field(default_factory=list)
    batches: list[tuple[str, Any]] = field(default_factory=list)
    results: list[tuple[str, CommandResult]] = field(default_factory=list)

    def failure(self, path: str) -> httpx.Response | None:
        if self.failures:
            if not (status := self.failures.pop(0)):
                raise httpx.ConnectError("refused")
            return httpx.Response(status, text="not now")
        if self.rejected and path.endswith(self.rejected):
            return httpx.Response(self.rejection, text="no")
        return None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/telemetry"):
            self.attempts.append(request.headers["idempotency-key"])
        if failed := self.failure(request.url.path):
            return failed
        path = request.url.path.strip("/").split("/")[1:]
        match request.method, path:
            case "POST", ["connect"]:
                return httpx.Response(200, json={"connected": True, "runtime_id": "run_1"})
            case "PUT", ["run_1", "inventory"]:
                self.inventories.append(json.loads(request.content))
                return httpx.Response(
                    200, json={"deployment_ids": {"chat": "dep_1"}, "history_wanted": self.history_wanted}
                )
            case "POST", ["run_1", "telemetry"]:
                sent = json.loads(request.content)
                named = {row["deployment_id"] for row in (*sent["readings"], *sent["latencies"])}
                if unknown := sorted(named & self.gone)[:1]:  # one at a time
                    return httpx.Response(404, json={"status": 404, "deployment_ids": unknown})
                self.batches.append((request.headers["idempotency-key"], json.loads(request.content)))
                return httpx.Response(202, json={"status": "started"})
            case "GET", ["run_1", "commands"]:
                if not self.deliveries:
                    return httpx.Response(401, json={})  # no more deliveries: ends the runtime's loop
                due = self.deliveries.pop(0)
                return httpx.Response(200, json=[command.model_dump() for command in due])
            case "POST", ["run_1", "commands", command_id, "result"]:
                self.results.append((command_id, CommandResult.model_validate_json(request.content)))
                return httpx.Response(200, json={"status": "started"})
        return httpx.Response(404, text=f"no such route {request.url.path}")

    async def connect(self) -> Platform:
        client = httpx.AsyncClient(transport=httpx.MockTransport(self), base_url="http://platform")
        platform = Platform("", "cust_1", "token", "1", client=client)
        await platform.connect()
        return platform
