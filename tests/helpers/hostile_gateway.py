"""An inference gateway, and engines, whose every name is a hostile text."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote

REQUESTS_PER_SECOND = 100
"""What each engine finishes, each request within a second."""


@dataclass(frozen=True)
class Names:
    """The names of one deployment: they must not be equal to those of another one."""

    deployment: str
    model: str
    provider: str
    region: str
    replica: str
    engine_arg: str


def names(texts: Sequence[str], first: int) -> Names:
    """The texts from the first on as names, told apart by what follows them."""
    kinds = ("deployment", "model", "provider", "region", "replica", "engine_arg")
    return Names(
        **{kind: f"{texts[(first + number) % len(texts)]} {first}.{number}" for number, kind in enumerate(kinds)}
    )


class HostileGateway:
    """`described` are the deployments as the runtime sees them, one on each instance. It serves `host`."""

    def __init__(self, host: str, named: Sequence[Names], instances: Sequence[tuple[str, str]]) -> None:
        self._host = host
        self.described = [_described(*each) for each in zip(named, instances, strict=True)]
        self._server = ThreadingHTTPServer((host, 0), _handler_of(self))
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._began = time.monotonic()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self._host}:{self._server.server_port}"

    def answer(self, path: str) -> str | None:
        """The response to `GET /fleet/{customer_id}/...`; None if there is no such thing."""
        match list(map(unquote, path.split("/")))[3:]:
            case ["history"]:
                return "[]"
            case ["deployments"]:
                return json.dumps(self.described)
            case ["deployments", name]:
                return next((json.dumps(one) for one in self.described if one["name"] == name), None)
            case ["replicas", replica_id, "metrics"]:
                return self._exposition(replica_id)
        return None

    def _exposition(self, replica_id: str) -> str:
        finished = int(REQUESTS_PER_SECOND * (time.monotonic() - self._began))
        label = json.dumps(replica_id, ensure_ascii=False)
        labels, latency = f"engine={label},model_name={label}", "vllm:e2e_request_latency_seconds"
        buckets = [f'{latency}_bucket{{{labels},le="{edge}"}} {finished}' for edge in ("1.0", "+Inf")]
        sums = [f"{latency}_count{{{labels}}} {finished}", f"{latency}_sum{{{labels}}} {finished / 2}"]
        success = f"vllm:request_success_total{{{labels},finished_reason={label}}} {finished}"
        return "\n".join([f"# TYPE {latency} histogram", *buckets, *sums, success, ""])

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Answer requests inside the context."""
        self._thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


def _described(named: Names, instance: tuple[str, str]) -> dict[str, Any]:
    instance_id, instance_type = instance
    replica = {
        "replica_id": named.replica,
        "instance_id": instance_id,
        "instance_type": instance_type,
        "state": "ready",
        "engine_args": {named.engine_arg: named.engine_arg},
        "weight": 1.0,
        "requests_running": 0.0,
    }
    return {
        "name": named.deployment,
        "model": named.model,
        "provider": named.provider,
        "region": named.region,
        "engine_args": {named.engine_arg: named.engine_arg},
        "slo": {"p95_latency_ms": 5000.0, "quality": 0.9},
        "interruptible": True,
        "speed": 1.0,
        "weights": {named.replica: 1.0},
        "requests_served": 0,
        "requests_dropped": 0,
        "replicas": [replica],
    }


def _handler_of(gateway: HostileGateway) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = gateway.answer(self.path)
            body = (answer or "").encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Log nothing."""

    return Handler
