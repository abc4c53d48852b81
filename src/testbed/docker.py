"""Docker commands, with an environment of their own and a deadline."""

import os
import subprocess
from collections.abc import Mapping

from testbed import paths
from testbed.environment import SetupError, scrubbed
from testbed.waiting import stretched

COMMAND_SECONDS = 60.0
# What docker itself needs: to find its engine and its plugins.
INHERITED = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG")


class DockerError(SetupError):
    """A docker command failed; the text is its output."""


def docker(
    *arguments: str,
    variables: Mapping[str, str] | None = None,
    seconds: float = COMMAND_SECONDS,
    errors_too: bool = False,
) -> str:
    """The output of a docker command, with `errors_too` that on stderr as well.

    Raises DockerError when it fails or takes too long.
    """
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    command = ["docker", *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=paths.ROOT,
            env=scrubbed(os.environ) | inherited | dict(variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if errors_too else subprocess.PIPE,
            text=True,
            check=False,
            timeout=stretched(seconds),
        )
    except FileNotFoundError as error:
        raise DockerError("docker is not installed: `invoke verify-prerequisites --backend compose`") from error
    except subprocess.TimeoutExpired as error:
        raise DockerError(f"`{' '.join(command)}` did not end within {error.timeout:.0f} s") from error
    if done.returncode != 0:
        raise DockerError(f"`{' '.join(command)}` failed:\n{done.stdout}{done.stderr or ''}".rstrip())
    return done.stdout
