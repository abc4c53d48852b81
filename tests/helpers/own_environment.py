"""An environment that belongs to one test, for fault injection: started, checked and cleaned by invoke tasks."""

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
from testbed.supervision import processes_of
from testbed.waiting import stretched


class OwnEnvironment:
    """An environment; once it is started, `document` is the output of `invoke status --json`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.document: dict[str, Any] = {}

    def invoke(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one invoke task on this environment. No process of the environment keeps the output pipes open."""
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
        """Stop and remove it; AssertionError with the output when that fails."""
        done = self.invoke("clean")
        assert done.returncode == 0, done.stdout + done.stderr

    def begin(self, log: Path, *words: str) -> subprocess.Popen[bytes]:
        """Start an invoke task without waiting for it."""
        return begin(log, *self._command(*words))

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "invoke", *words, "--name", self.name]

    def health(self) -> tuple[int, dict[str, Any]]:
        """Exit code of health-check, and its row by part."""
        done = self.invoke("health-check", "--json")
        return done.returncode, {row["name"]: row for row in json.loads(done.stdout)["parts"]}

    def processes(self) -> list[psutil.Process]:
        """All processes of the environment."""
        return processes_of(self.name)

    def process(self, module: str) -> psutil.Process:
        """The one process that runs `python -m MODULE`."""
        (found,) = self.running(module)
        return found

    def running(self, module: str) -> list[psutil.Process]:
        """The processes that run `python -m MODULE`: none while it is being restarted."""
        return [process for process in self.processes() if runs(process, module)]


def begin(log: Path, *command: str) -> subprocess.Popen[bytes]:
    """Start a command in this checkout; its output is appended to a file."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command, cwd=paths.ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )


def traces(name: str) -> list[str]:
    """The processes, folder, lock file and temporary folders of an environment. Empty when it is removed."""
    kinds = ("run", "postgresql")
    places = [paths.state_dir(name), paths.lock_file(name)]
    places += [folder for kind in kinds for folder in private_folders(kind, environments.env_id(name))]
    return [*map(str, processes_of(name)), *(str(place) for place in places if place.exists())]


@contextmanager
def own_environment(name: str, *words: str) -> Iterator[OwnEnvironment]:
    """Start an environment, with these arguments to `invoke start-test-env`, and clean it whatever happens."""
    environment = OwnEnvironment(name)
    try:
        started = environment.invoke("start-test-env", *words)
        assert started.returncode == 0, started.stdout + started.stderr
        environment.document = json.loads(environment.invoke("status", "--json").stdout)
        yield environment
    finally:
        environment.clean()


def runs(process: psutil.Process, module: str) -> bool:
    """Whether the process runs `python -m MODULE`; False if it has ended."""
    try:
        return module in process.cmdline()
    except psutil.Error:
        return False
