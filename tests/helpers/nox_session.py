"""``python -m tests.helpers.nox_session NAME ARGUMENT...``: a session of noxfile.py with these positional arguments.

With a name that no session has: its suite with these arguments for pytest, on an environment of its own. This is a
replacement for nox that tests can kill. It uses the present virtualenv instead of creating one.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from testbed import paths


class Session:
    """The part of `nox.Session` that a suite uses."""

    def __init__(self, name: str, posargs: Sequence[str]) -> None:
        self.name, self.posargs = name, list(posargs)
        self.env: dict[str, str] = {}

    def install(self, *_arguments: str) -> None:
        """Do nothing: the present virtualenv has everything."""

    def log(self, text: str) -> None:
        """Print the message."""
        print(text, flush=True)  # noqa: T201

    def run(
        self,
        *command: str,
        env: dict[str, str] | None = None,
        silent: bool = False,
        success_codes: Sequence[int] = (0,),
    ) -> str | None:
        """Run a command of the session from this virtualenv; returns its output if silent."""
        module = command if command[0] == "python" else ("python", "-m", *command)
        variables = os.environ | self.env | (env or {})
        output = subprocess.PIPE if silent else None
        done = subprocess.run(
            [sys.executable, *module[1:]], cwd=paths.ROOT, env=variables, stdout=output, text=True, check=False
        )
        if done.returncode not in success_codes:
            sys.exit(f"{' '.join(command)} exited with {done.returncode}\n{done.stdout or ''}")
        return done.stdout


def main() -> None:
    """Run the session, or else the suite."""
    name, *arguments = sys.argv[1:]
    sessions: dict[str, Any] = {}

    def declare(function: Any = None, **options: Any) -> Any:
        if function is None:
            return partial(declare, **options)
        sessions[function.__name__] = function
        return function

    stand_in: Any = SimpleNamespace(session=declare, options=SimpleNamespace(), Session=Session)
    sys.modules["nox"] = stand_in
    noxfile, session = import_module("noxfile"), Session(name, arguments)
    if name in sessions:
        sessions[name](session)
    else:
        noxfile.suite(session, *arguments, reuse=False)


if __name__ == "__main__":
    main()
