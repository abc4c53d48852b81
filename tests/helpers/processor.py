"""How long a process has waited for a processor."""

from contextlib import suppress
from pathlib import Path


def waited_for_processor(pid: int) -> float:
    """Seconds for which the main thread of a process could run but did not; 0 where the system does not tell."""
    with suppress(FileNotFoundError):  # not on Linux
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0
