"""The proxy fails in each of its ways, and works again afterwards."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from testbed.environment import free_port
from tests.helpers.proxy import HOST, Failure, Proxy, proxy_to

LONG, SHORT = 30.0, 0.25


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy before a server that answers each chunk with the same chunk twice."""
    with socket.create_server((HOST, 0)) as server:
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        with proxy_to(server.getsockname()[1], free_port(set())) as started:
            yield started


def _serve(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return  # the test is over
        threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection, suppress(ConnectionError):
        while piece := connection.recv(100):
            connection.sendall(piece + piece)


def ask(client: socket.socket, seconds: float = LONG) -> bytes:
    client.settimeout(seconds)
    client.sendall(b"word")
    return client.recv(100)


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), 5)


def ask_on_new_connection(proxy: Proxy, seconds: float = LONG) -> bytes:
    with connect(proxy) as client:
        return ask(client, seconds)


@pytest.mark.parametrize(
    ("how", "seen"),
    [("refused", ConnectionRefusedError), ("reset", ConnectionError), ("hanging", TimeoutError)],
)
def test_proxy_that_refuses_resets_or_hangs_passes_nothing_until_it_recovers(
    proxy: Proxy, how: Failure, seen: type[Exception]
) -> None:
    with connect(proxy) as before:
        assert ask(before) == b"wordword"
        with proxy.failing(how):
            with pytest.raises(TimeoutError if how == "hanging" else ConnectionError):
                ask(before, SHORT)
            with pytest.raises(seen):
                ask_on_new_connection(proxy, SHORT)
    assert ask_on_new_connection(proxy) == b"wordword"


def test_proxy_that_hung_delivers_the_data_after_recovery(proxy: Proxy) -> None:
    with connect(proxy) as client:
        with proxy.failing("hanging"), pytest.raises(TimeoutError):
            ask(client, SHORT)
        client.settimeout(LONG)
        assert client.recv(100) == b"wordword"


def test_proxy_that_cuts_ends_a_response_in_the_middle(proxy: Proxy) -> None:
    with proxy.failing("cut"), connect(proxy) as client:
        assert ask(client) == b"word"
        with pytest.raises(ConnectionResetError):
            client.recv(100)


def test_proxy_that_is_slow_delays_the_response(proxy: Proxy) -> None:
    with proxy.failing("slow"), connect(proxy) as client:
        with pytest.raises(TimeoutError):
            ask(client, SHORT)
        client.settimeout(LONG)
        assert client.recv(100) == b"wordword"
