"""What an engine reads from its environment."""

import os
import tempfile
from pathlib import Path

HOST = "127.0.0.1"


def required(name: str) -> str:
    """The value of an environment variable; ends the process with a clear message when it is missing or empty."""
    value = os.environ.get(name, "")
    if not value:
        raise SystemExit(f"{name} is not set: engines are started by `invoke start-test-env`, which sets it")
    return value


def port(name: str) -> int:
    """The port number in ``OPTIINFRA_<NAME>_PORT``."""
    variable = f"OPTIINFRA_{name.upper()}_PORT"
    value = required(variable)
    if not value.isdigit() or not 0 < int(value) < 65536:
        raise SystemExit(f"{variable}={value!r} is not a port: give a number from 1 to 65535")
    return int(value)


def state_dir() -> Path:
    """The environment's own folder, which exists."""
    return Path(required("OPTIINFRA_STATE_DIR")).resolve()


def data_dir(engine: str) -> Path:
    """The engine's data folder, created private when it is missing."""
    path = state_dir() / engine
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def private_folder(kind: str, env_id: str) -> Path:
    """A new private folder for what cannot lie in the environment's own.

    Its name is short and says whose it is, so that it is found though whoever made it died the moment after.
    """
    return Path(tempfile.mkdtemp(prefix=_prefix(kind, env_id)))


def private_folders(kind: str, env_id: str) -> list[Path]:
    """All folders of this kind that the environment has."""
    return sorted(Path(tempfile.gettempdir()).glob(f"{_prefix(kind, env_id)}*"))


def _prefix(kind: str, env_id: str) -> str:
    return f"optiinfra-{kind}-{env_id.rpartition('-')[2]}-"
