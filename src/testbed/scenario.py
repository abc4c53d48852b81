"""A scenario's phases: declared up front, carried out in order, printed as they go."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


class PhaseError(AssertionError):
    """A phase was left out, repeated, nested or taken out of order."""


class Scenario:
    """What a scenario test prints, and the order that it must keep.

    Lines go to ``write`` as they come and are kept in ``lines`` for the report.
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
        self._begun = 0
        self._write = write

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Carry out the next phase; PhaseError when it is not the next one."""
        if self.current is not None:
            raise PhaseError(f"phase {name!r} begins inside phase {self.current!r}")
        expected = self.phases[self._begun] if self._begun < len(self.phases) else None
        if name != expected:
            wanted = f"{expected!r} comes next" if expected else "all declared phases are over"
            raise PhaseError(f"phase {name!r} is out of order: {wanted} (declared: {', '.join(self.phases)})")
        self._begun += 1
        self.current = name
        self._line(f"■ PHASE {self._begun}: {name}...")
        yield
        # Not in a finally: a phase that failed stays current, for the report to name it.
        self.current = None

    def say(self, text: str) -> None:
        """A figure or a fact of the phase, indented."""
        self._line(f"  {text}")

    def announce(self, text: str) -> None:
        """Something that the scenario was waiting for has come true."""
        self._line(f"■ {text}")

    def finish(self) -> None:
        """The test's body has ended well: PhaseError names the phases that it left out."""
        left = self.phases[self._begun :]
        if left:
            raise PhaseError(f"phases left out: {', '.join(left)}")
        self._line(f"■ {self.title} PASSED")

    def where(self) -> str:
        """The phase that the scenario stands in, in words."""
        if self.current is not None:
            return f"in phase {self._begun}: {self.current}"
        if self._begun == 0:
            return f"before phase 1: {self.phases[0]}"
        return f"after phase {self._begun}: {self.phases[self._begun - 1]}"

    def _line(self, line: str) -> None:
        self.lines.append(line)
        self._write(line)
