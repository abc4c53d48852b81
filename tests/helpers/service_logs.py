"""The log files of an environment's parts."""

from pathlib import Path
from typing import Any

from testbed import environment as environments
from testbed import logs
from testbed.backends import backend_of


def logs_of(environment: dict[str, Any]) -> dict[str, Path]:
    """Every log as it is now, by program. Containers keep theirs until they are asked for it."""
    described = environments.load(environment["name"])
    assert described is not None, f"environment {environment['name']} is gone"
    backend_of(described).save_logs()
    return {log.stem: log for log in logs.files(described.name, "")}
