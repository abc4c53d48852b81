"""How long a process has waited for a processor."""

import os
from contextlib import suppress
from pathlib import Path


def waited_for_processor(pid: int) -> float:
    """Seconds for which the main thread of a process could run but did not; 0 where the system does not tell."""
    with suppress(FileNotFoundError):  # not on Linux
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def taken_by_the_host() -> float:
    """Seconds that the host of this virtual machine has given its processors to others; 0 where that is not told."""
    with suppress(FileNotFoundError):  # not on Linux
        stolen = Path("/proc/stat").read_text().split()[8]  # of all processors, in ticks
        return int(stolen) / os.sysconf("SC_CLK_TCK")
    return 0.0
