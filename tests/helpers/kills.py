"""`kill -9` of the parts of an environment, which its backend restarts."""

from testbed import environment as environments
from testbed.backends import backend_of
from testbed.health import Row, check
from testbed.parts import find_part
from testbed.waiting import wait_until

RESTART_SECONDS = 60.0


def kill_and_wait_until_healthy(environment_name: str, part_name: str) -> None:
    """Kill the process of a part, and wait until another one answers in its place."""
    environment, part = environments.load(environment_name), find_part(part_name)
    assert environment is not None, f"environment {environment_name} is gone"
    backend = backend_of(environment)
    killed = backend.states()[part.program].pid
    backend.kill(part.program)

    def restarted() -> tuple[int, Row]:
        return backend.states()[part.program].pid, check(environment, part, None)

    wait_until(
        restarted,
        f"{part_name} to be restarted",
        RESTART_SECONDS,
        accept=lambda seen: seen[0] not in (0, killed) and seen[1].status == "healthy",
    )
