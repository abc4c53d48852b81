"""An environment of a test's own, to break: started, looked at and cleaned by the verbs that an operator has."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from testbed import paths
from testbed.waiting import stretched


class OwnEnvironment:
    """A started environment; `document` is what `invoke status --json` says of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.document: dict[str, Any] = {}

    def invoke(self, *words: str) -> subprocess.CompletedProcess[str]:
        """One verb on this environment; output goes to pipes that nothing outlives."""
        return subprocess.run(
            [sys.executable, "-m", "invoke", *words, "--name", self.name],
            cwd=paths.ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=stretched(180),
            stdin=subprocess.DEVNULL,
        )

    def health(self) -> tuple[int, dict[str, Any]]:
        """Exit code of health-check, and its row by part."""
        done = self.invoke("health-check", "--json")
        return done.returncode, {row["name"]: row for row in json.loads(done.stdout)["parts"]}

    def processes(self) -> list[psutil.Process]:
        """Everything that belongs to the environment."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("OPTIINFRA_ENV_ID") == self.document["env_id"]:
                    found.append(process)
            except psutil.Error:
                continue  # it ended while we looked
        return found

    def process(self, module: str) -> psutil.Process:
        """The one process that runs `python -m MODULE`."""
        (found,) = self.running(module)
        return found

    def running(self, module: str) -> list[psutil.Process]:
        """The processes that run `python -m MODULE`: none while it is being brought back."""
        return [process for process in self.processes() if _runs(process, module)]


@contextmanager
def own_environment(name: str) -> Iterator[OwnEnvironment]:
    """Start one, and clean it up whatever happens."""
    environment = OwnEnvironment(name)
    try:
        started = environment.invoke("start-test-env")
        assert started.returncode == 0, started.stdout + started.stderr
        environment.document = json.loads(environment.invoke("status", "--json").stdout)
        yield environment
    finally:
        environment.invoke("clean")


def _runs(process: psutil.Process, module: str) -> bool:
    try:
        return module in process.cmdline()
    except psutil.Error:
        return False
