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
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from xml.sax.saxutils import escape

from testbed.engines import settings

_REFUSAL = """
    <rule><handler>
      <type>static</type><status>401</status>
      <response_content>Authentication failed: the account is unknown or its password is wrong</response_content>
    </handler></rule>"""


_PING = """
    <rule><url>/ping</url><methods>GET,HEAD</methods><handler><type>ping</type></handler></rule>"""
_LOOPBACK = "<networks><ip>127.0.0.1</ip><ip>::1</ip></networks>"
_ANYWHERE = "<networks><ip>::/0</ip></networks>"


@dataclass(frozen=True)
class Accounts:
    """The account of the platform and the read-only one of agents; `anywhere` if others than this machine use them."""

    user: str
    password: str
    reader: str
    reader_password: str
    anywhere: bool = False

    @property
    def passwords(self) -> dict[str, str]:
        """Password by name."""
        return {self.user: self.password, self.reader: self.reader_password}


def users_xml(accounts: Accounts, database: str = "") -> str:
    """The accounts, and the library's `default`, which may only start it and create `database`.

    The library cannot store accounts created with SQL, so all of them are listed here.
    """
    digest, reader_digest = (hashlib.sha256(word.encode()).hexdigest() for word in accounts.passwords.values())
    own = "<profile>default</profile><quota>default</quota>"
    networks = _ANYWHERE if accounts.anywhere else _LOOPBACK
    user, reader = accounts.user, accounts.reader
    creation = f"<query>GRANT CREATE DATABASE ON {database}.*</query>" if database else ""
    return f"""\
<clickhouse>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <password/>{_LOOPBACK}{own}
      <grants>{creation}
        <query>GRANT SYSTEM LISTEN ON *.*</query>
        <query>GRANT CREATE TEMPORARY TABLE ON *.*</query>
        <query>GRANT FILE ON *.*</query>
      </grants>
    </default>
    <{user}>
      <password_sha256_hex>{digest}</password_sha256_hex>{networks}{own}
      <grants>
        <query>GRANT ALL ON *.*</query>
        <query>REVOKE SOURCES ON *.*</query>
      </grants>
    </{user}>
    <{reader}>
      <password_sha256_hex>{reader_digest}</password_sha256_hex>{networks}{own}
      <grants><query>GRANT SELECT ON {user}*.*</query></grants>
    </{reader}>
  </users>
</clickhouse>
"""


def config_xml(port: int, data: Path, users: Mapping[str, str]) -> str:
    """The server's configuration: HTTP for these users (password by name), small caches, fast shutdown.

    Others may only ask whether it answers. Their queries are refused: web pages could use the account `default`.
    """
    folder = escape(str(data))
    handlers = "".join(map(_handler, _credentials(users)))
    return f"""\
<clickhouse>
  <http_handlers>{_PING}{handlers}{_REFUSAL}</http_handlers>
  <listen_host>{settings.listen_host()}</listen_host>
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

    def __init__(self, data: Path, database: str = "") -> None:
        self._data, self._database = data, database
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
        create = f"CREATE DATABASE IF NOT EXISTS {self._database};" if self._database else ""
        queries = f"{create} SYSTEM START LISTEN HTTP; {endless}"
        result = _chdb.query(queries, "TabSeparated", path=str(self._data / "db"))
        if result.has_error():
            self.error = result.error_message()
        elif not self._stopping.locked():
            self.error = "the server ended unexpectedly"


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    data = settings.data_dir("clickhouse")
    user = settings.required("OPTIINFRA_CLICKHOUSE_USER")
    accounts = Accounts(
        user,
        settings.required("OPTIINFRA_CLICKHOUSE_PASSWORD"),
        os.environ.get("OPTIINFRA_CLICKHOUSE_READER") or f"{user}_reader",
        settings.required("OPTIINFRA_CLICKHOUSE_READER_PASSWORD"),
        anywhere=settings.listen_host() != settings.HOST,
    )
    database = os.environ.get("OPTIINFRA_CLICKHOUSE_DATABASE", "")
    settings.write_private(data / "users.xml", users_xml(accounts, database))
    settings.write_private(data / "config.xml", config_xml(settings.port("clickhouse"), data, accounts.passwords))
    # Temporary files of the library. A killed process leaves them behind.
    scratch = data / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    os.environ["TMPDIR"] = str(scratch)
    os.chdir(data)  # where the library looks for config.xml
    server = Server(data, database)
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
