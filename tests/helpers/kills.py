"""`kill -9` of the parts of an environment, which its supervisor restarts."""

import os
import signal

from testbed import environment as environments
from testbed.health import Row, check
from testbed.parts import find_part
from testbed.supervision import Supervisor
from testbed.waiting import wait_until

RESTART_SECONDS = 60.0


def kill_and_wait_until_healthy(environment_name: str, part_name: str) -> None:
    """Kill the process of a part, and wait until another one answers in its place."""
    environment, part = environments.load(environment_name), find_part(part_name)
    assert environment is not None, f"environment {environment_name} is gone"
    supervisor = Supervisor(environment)
    killed = supervisor.states()[part.program].pid
    os.kill(killed, signal.SIGKILL)

    def restarted() -> tuple[int, Row]:
        return supervisor.states()[part.program].pid, check(environment, part, None)

    wait_until(
        restarted,
        f"{part_name} to be restarted",
        RESTART_SECONDS,
        accept=lambda seen: seen[0] not in (0, killed) and seen[1].status == "healthy",
    )
