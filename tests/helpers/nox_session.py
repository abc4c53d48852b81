"""``python -m tests.helpers.nox_session NAME ARGUMENT...``: a suite of noxfile.py on an environment of its own.

A replacement for nox that tests can kill. It uses the present virtualenv instead of creating one.
"""

import os
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from testbed import paths


class Session:
    """The part of `nox.Session` that a suite uses."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.env: dict[str, str] = {}

    def install(self, *_arguments: str) -> None:
        """Do nothing: the present virtualenv has everything."""

    def log(self, text: str) -> None:
        """Print the message."""
        print(text, flush=True)  # noqa: T201

    def run(self, *command: str, env: dict[str, str] | None = None) -> None:
        """Run a command of the session from this virtualenv."""
        module = command if command[0] == "python" else ("python", "-m", *command)
        variables = os.environ | self.env | (env or {})
        subprocess.run([sys.executable, *module[1:]], cwd=paths.ROOT, env=variables, check=True)


def main() -> None:
    """Run the suite."""
    name, *arguments = sys.argv[1:]
    stand_in: Any = SimpleNamespace(session=lambda function: function, options=SimpleNamespace(), Session=Session)
    sys.modules["nox"] = stand_in
    import_module("noxfile").suite(Session(name), *arguments, reuse=False)


if __name__ == "__main__":
    main()
