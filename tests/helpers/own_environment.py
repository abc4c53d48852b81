"""An environment of a test's own, to break: started, looked at and cleaned by the verbs that an operator has."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from testbed import environment as environments
from testbed import paths
from testbed.engines.settings import private_folders
from testbed.supervision import strays
from testbed.waiting import stretched


class OwnEnvironment:
    """A started environment; `document` is what `invoke status --json` says of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.document: dict[str, Any] = {}

    def invoke(self, *words: str) -> subprocess.CompletedProcess[str]:
        """One verb on this environment; output goes to pipes that nothing outlives."""
        return subprocess.run(
            self._command(*words),
            cwd=paths.ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=stretched(180),
            stdin=subprocess.DEVNULL,
        )

    def clean(self) -> None:
        """Stop and remove it; AssertionError with what the verb said when that fails."""
        done = self.invoke("clean")
        assert done.returncode == 0, done.stdout + done.stderr

    def begin(self, log: Path, *words: str) -> subprocess.Popen[bytes]:
        """The same, without waiting for its end: to kill it, or to have two at once."""
        return begin(log, *self._command(*words))

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "invoke", *words, "--name", self.name]

    def health(self) -> tuple[int, dict[str, Any]]:
        """Exit code of health-check, and its row by part."""
        done = self.invoke("health-check", "--json")
        return done.returncode, {row["name"]: row for row in json.loads(done.stdout)["parts"]}

    def processes(self) -> list[psutil.Process]:
        """Everything that belongs to the environment."""
        return strays(self.name)

    def process(self, module: str) -> psutil.Process:
        """The one process that runs `python -m MODULE`."""
        (found,) = self.running(module)
        return found

    def running(self, module: str) -> list[psutil.Process]:
        """The processes that run `python -m MODULE`: none while it is being brought back."""
        return [process for process in self.processes() if runs(process, module)]


def begin(log: Path, *command: str) -> subprocess.Popen[bytes]:
    """A command in this checkout, running by itself; its output is added to a file."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command, cwd=paths.ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )


def traces(name: str) -> list[str]:
    """What there is of an environment: processes, folder, lock, temporary folders. Empty when it is gone."""
    kinds = ("run", "postgresql")
    places = [paths.state_dir(name), paths.lock_file(name)]
    places += [folder for kind in kinds for folder in private_folders(kind, environments.env_id(name))]
    return [*map(str, strays(name)), *(str(place) for place in places if place.exists())]


@contextmanager
def own_environment(name: str, *words: str) -> Iterator[OwnEnvironment]:
    """Start one, with these words to the verb that does, and clean it up whatever happens."""
    environment = OwnEnvironment(name)
    try:
        started = environment.invoke("start-test-env", *words)
        assert started.returncode == 0, started.stdout + started.stderr
        environment.document = json.loads(environment.invoke("status", "--json").stdout)
        yield environment
    finally:
        environment.clean()


def runs(process: psutil.Process, module: str) -> bool:
    """Whether the process is a `python -m MODULE`; one that has ended is not."""
    try:
        return module in process.cmdline()
    except psutil.Error:
        return False
