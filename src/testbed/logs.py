"""`invoke logs`: show and follow the logs of parts."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

from testbed import paths
from testbed.parts import find_part

TAIL_LINES = 100
POLL_SECONDS = 0.3


def files(name: str, service: str) -> list[Path]:
    """The log files of one part, or of all parts when `service` is empty. ValueError for an unknown part."""
    folder = paths.log_dir(name)
    if service:
        return [folder / f"{find_part(service).program}.log"]
    return sorted(folder.glob("*.log"))


def show(
    chosen: list[Path], write: Callable[[str], None], *, follow: bool, save: Callable[[], None] = lambda: None
) -> None:
    """Write the last lines of each log, and with `follow` new lines until Ctrl-C.

    `save` brings the files up to date meanwhile. Lines carry the name of their program when several logs are shown.
    """
    positions: dict[Path, int] = {}
    for path in chosen:
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        positions[path] = path.stat().st_size if path.exists() else 0
        for line in lines[-TAIL_LINES:]:
            write(_labelled(path, line, chosen))
    pause = threading.Event()
    with contextlib.suppress(KeyboardInterrupt):
        while follow and not pause.wait(POLL_SECONDS):
            save()
            for path in chosen:
                _show_new(path, positions, chosen, write)


def _show_new(path: Path, positions: dict[Path, int], chosen: list[Path], write: Callable[[str], None]) -> None:
    size = path.stat().st_size if path.exists() else 0
    if size < positions[path]:  # rotated
        positions[path] = 0
    if size == positions[path]:
        return
    with path.open("rb") as file:
        file.seek(positions[path])
        whole = file.read(size - positions[path])
    complete = whole[: whole.rfind(b"\n") + 1]
    positions[path] += len(complete)
    for line in complete.decode(errors="replace").splitlines():
        write(_labelled(path, line, chosen))


def _labelled(path: Path, line: str, chosen: list[Path]) -> str:
    return f"{path.stem:<18} {line}" if len(chosen) > 1 else line
