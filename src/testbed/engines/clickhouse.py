"""ClickHouse: the server inside the chdb-core wheel, with its own HTTP interface.

The library serves only while a query runs. That query reads a pipe, which is closed to stop the server. The server is
ready when an authenticated HTTP query succeeds, not when its process runs.
"""

import base64
import hashlib
import importlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from xml.sax.saxutils import escape

from testbed.engines import settings

_REFUSAL = """
    <rule><handler>
      <type>static</type><status>401</status>
      <response_content>Authentication failed: the account is unknown or its password is wrong</response_content>
    </handler></rule>"""


def users_xml(user: str, password: str, reader_password: str) -> str:
    """The accounts: the platform's, a read-only one for agents, and the library's `default`, which may only start it.

    The library cannot store accounts created with SQL, so all of them are listed here.
    """
    digest, reader_digest = (hashlib.sha256(word.encode()).hexdigest() for word in (password, reader_password))
    own = "<networks><ip>127.0.0.1</ip><ip>::1</ip></networks><profile>default</profile><quota>default</quota>"
    return f"""\
<clickhouse>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <password/>{own}
      <grants>
        <query>GRANT SYSTEM LISTEN ON *.*</query>
        <query>GRANT CREATE TEMPORARY TABLE ON *.*</query>
        <query>GRANT FILE ON *.*</query>
      </grants>
    </default>
    <{user}>
      <password_sha256_hex>{digest}</password_sha256_hex>{own}
      <grants>
        <query>GRANT ALL ON *.*</query>
        <query>REVOKE SOURCES ON *.*</query>
      </grants>
    </{user}>
    <{user}_reader>
      <password_sha256_hex>{reader_digest}</password_sha256_hex>{own}
      <grants><query>GRANT SELECT ON {user}*.*</query></grants>
    </{user}_reader>
  </users>
</clickhouse>
"""


def config_xml(port: int, data: Path, users: Mapping[str, str]) -> str:
    """The server's configuration: HTTP on loopback for these users (password by name), small caches, fast shutdown.

    Others are refused, among them web pages, which could use the account `default`.
    """
    folder = escape(str(data))
    handlers = "".join(map(_handler, _credentials(users)))
    return f"""\
<clickhouse>
  <http_handlers>{handlers}{_REFUSAL}</http_handlers>
  <listen_host>{settings.HOST}</listen_host>
  <http_port>{port}</http_port>
  <users_config>{folder}/users.xml</users_config>
  <logger><level>information</level><console>1</console></logger>
  <log-level>information</log-level>
  <keep_alive_timeout>10</keep_alive_timeout>
  <shutdown_wait_unfinished>0</shutdown_wait_unfinished>
  <max_server_memory_usage>1000000000</max_server_memory_usage>
  <mark_cache_size>33554432</mark_cache_size>
  <timezone>UTC</timezone>
</clickhouse>
"""


def _credentials(users: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name and value of each header that identifies one of the users."""
    for user, password in users.items():
        yield "Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        yield "X-ClickHouse-User", user


def _handler(credential: tuple[str, str]) -> str:
    """The handler of queries with such a header."""
    name, value = credential
    query = "<type>dynamic_query_handler</type><query_param_name>query</query_param_name>"
    return f"<rule><headers><{name}>{escape(value)}</{name}></headers><handler>{query}</handler></rule>"


class Server:
    """The library's server. `run` blocks; `stop` may be called from a signal handler."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._reader, self._writer = os.pipe()
        self._stopping = threading.Lock()
        self.error: str | None = None

    def stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """Close the pipe, which ends the query and with it the server."""
        if self._stopping.acquire(blocking=False):
            os.close(self._writer)

    def run(self) -> None:
        """Serve until `stop`. Sets `error` when the server ended for another reason."""
        _chdb = importlib.import_module("chdb._chdb")  # large (300 MB) and untyped
        _chdb.set_signal_handlers_enabled(0)
        endless = f"SELECT count() FROM file('/dev/fd/{self._reader}', 'LineAsString')"  # noqa: S608  (our own pipe)
        result = _chdb.query(f"SYSTEM START LISTEN HTTP; {endless}", "TabSeparated", path=str(self._data / "db"))
        if result.has_error():
            self.error = result.error_message()
        elif not self._stopping.locked():
            self.error = "the server ended unexpectedly"


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    data = settings.data_dir("clickhouse")
    user = settings.required("OPTIINFRA_CLICKHOUSE_USER")
    password = settings.required("OPTIINFRA_CLICKHOUSE_PASSWORD")
    reader_password = settings.required("OPTIINFRA_CLICKHOUSE_READER_PASSWORD")
    users = {user: password, f"{user}_reader": reader_password}
    settings.write_private(data / "users.xml", users_xml(user, password, reader_password))
    settings.write_private(data / "config.xml", config_xml(settings.port("clickhouse"), data, users))
    # Temporary files of the library. A killed process leaves them behind.
    scratch = data / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    os.environ["TMPDIR"] = str(scratch)
    os.chdir(data)  # where the library looks for config.xml
    server = Server(data)
    signal.signal(signal.SIGTERM, server.stop)
    signal.signal(signal.SIGINT, server.stop)
    thread = threading.Thread(target=server.run, name="clickhouse")
    thread.start()
    while thread.is_alive():  # a join without timeout would block signal handlers
        thread.join(0.2)
    if server.error:
        print(server.error, file=sys.stderr)  # noqa: T201
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if server.error else 0)  # the library's own exit handlers may hang


if __name__ == "__main__":
    main()
