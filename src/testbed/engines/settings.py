"""Settings of an engine from its environment variables, and its private files."""

import os
import tempfile
from pathlib import Path

HOST = "127.0.0.1"


def required(name: str) -> str:
    """The value of an environment variable. SystemExit with a message when it is missing or empty."""
    value = os.environ.get(name, "")
    if not value:
        raise SystemExit(f"{name} is not set: start engines with `invoke start-test-env`, which sets it")
    return value


def listen_host() -> str:
    """`OPTIINFRA_HOST`: where to listen. In a container, whose network is its own, that is every address."""
    return os.environ.get("OPTIINFRA_HOST") or HOST


def port(name: str) -> int:
    """The port in `OPTIINFRA_<NAME>_PORT`. SystemExit with a message when it is invalid."""
    variable = f"OPTIINFRA_{name.upper()}_PORT"
    value = required(variable)
    if not value.isdigit() or not 0 < int(value) < 65536:
        raise SystemExit(f"{variable}={value!r} is not a port: give a number from 1 to 65535")
    return int(value)


def state_dir() -> Path:
    """The environment's folder, which exists."""
    return Path(required("OPTIINFRA_STATE_DIR")).resolve()


def data_dir(engine: str) -> Path:
    """The engine's data folder, created with mode 0700 when missing."""
    path = state_dir() / engine
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file with mode 0600, which it has from the moment of its creation."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def private_folder(kind: str, env_id: str) -> Path:
    """A new private folder outside the environment's own.

    Its short name identifies the environment, so that cleaning finds it even if its creator was killed at once.
    """
    return Path(tempfile.mkdtemp(prefix=_prefix(kind, env_id)))


def private_folders(kind: str, env_id: str = "*") -> list[Path]:
    """All private folders of this kind that belong to the environment, by default to any."""
    return sorted(Path(tempfile.gettempdir()).glob(f"{_prefix(kind, env_id)}*"))


def _prefix(kind: str, env_id: str) -> str:
    return f"optiinfra-{kind}-{env_id.rpartition('-')[2]}-"
