"""Phases of a scenario test: declared in advance, run in order, printed as they start."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


class PhaseError(AssertionError):
    """A phase is missing, repeated, nested or out of order."""


class Scenario:
    """The output and the phase order of one scenario test.

    Each line goes to `write` at once and is kept in `lines` for the report.
    """

    def __init__(self, title: str, phases: Sequence[str], write: Callable[[str], None] = print) -> None:
        if not phases:
            raise ValueError("a scenario declares its phases: @pytest.mark.phases('Recording initial state', ...)")
        if len(set(phases)) != len(phases):
            raise ValueError(f"phases must differ from each other: {', '.join(phases)}")
        self.title = title
        self.phases = tuple(phases)
        self.lines: list[str] = []
        self.current: str | None = None
        self._started = 0
        self._write = write

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Run the next phase. PhaseError when another phase is next or one is still running."""
        if self.current is not None:
            raise PhaseError(f"phase {name!r} starts inside phase {self.current!r}")
        expected = self.phases[self._started] if self._started < len(self.phases) else None
        if name != expected:
            wanted = f"expected {expected!r}" if expected else "all declared phases have run"
            raise PhaseError(f"phase {name!r} is out of order: {wanted} (declared: {', '.join(self.phases)})")
        self._started += 1
        self.current = name
        self._line(f"■ PHASE {self._started}: {name}...")
        yield
        # Not in a finally block: a failed phase stays current, so that the report names it.
        self.current = None

    def say(self, text: str) -> None:
        """Print a figure or fact of the phase, indented."""
        self._line(f"  {text}")

    def announce(self, text: str) -> None:
        """Print a milestone of the scenario."""
        self._line(f"■ {text}")

    def finish(self) -> None:
        """Print that the test passed. PhaseError names the phases that did not run."""
        missing = self.phases[self._started :]
        if missing:
            raise PhaseError(f"phases did not run: {', '.join(missing)}")
        self._line(f"■ {self.title} PASSED")

    def position(self) -> str:
        """The current phase, or the last or first one, for messages."""
        if self.current is not None:
            return f"in phase {self._started}: {self.current}"
        if self._started == 0:
            return f"before phase 1: {self.phases[0]}"
        return f"after phase {self._started}: {self.phases[self._started - 1]}"

    def _line(self, line: str) -> None:
        self.lines.append(line)
        self._write(line)
