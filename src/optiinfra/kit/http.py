"""Outgoing HTTP: one reused client per peer, with timeouts and the caller's trace id."""

import ssl
from functools import cache

import httpx

from optiinfra.kit.logging import TRACE_HEADER, trace_id


@cache
def _trust() -> ssl.SSLContext:
    """One context for all clients: loading the certificate authorities takes 20 ms."""
    return httpx.create_ssl_context(trust_env=False)


async def _carry_trace(request: httpx.Request) -> None:
    if trace := trace_id():
        request.headers[TRACE_HEADER] = trace


def client(base_url: str = "", *, timeout: float = 10.0, connections: int = 100) -> httpx.AsyncClient:
    """An asynchronous client whose requests time out after `timeout` seconds and carry the current trace id."""
    return httpx.AsyncClient(
        base_url=base_url,
        timeout=httpx.Timeout(timeout, connect=min(timeout, 5.0)),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        event_hooks={"request": [_carry_trace]},
        trust_env=False,
        verify=_trust(),
    )
