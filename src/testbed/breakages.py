"""``python -m testbed.breakages [-k WORD]``: would the tests notice if the platform were broken?

Each `tests/breakages/*.patch` breaks one line of the platform and names the test that has to notice. In a git worktree
of its own, of the checked-out commit, that test is run as it is and must pass, then with the line broken, and must fail
by an assertion: a test that stays green proves nothing, and one that cannot be run any more proves nothing either.
"""

import argparse
import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path
from xml.etree import ElementTree

from rich.live import Live
from rich.markup import escape
from rich.table import Column, Table

from testbed import leftovers, paths
from testbed.console import console
from testbed.fingerprint import version
from testbed.waiting import stretched
from testbed.worktrees import GitError, folder_for, git, variables, worktree

FOLDER = paths.ROOT / "tests" / "breakages"
AT_ONCE = 2
TEST_SECONDS = 60.0
"""How long a test may take before pytest ends it; so long again for pytest itself."""
END_SECONDS = 10.0
"""How long a pytest that was interrupted may take to stop the engines that it started."""
PASSED, FAILED = 0, 1  # pytest's exit codes
STOPPED = 130

_PLACE = re.compile(r"^(\S+\.py):\d+: (\w+)$", re.MULTILINE)


class BreakageError(Exception):
    """A patch is none, or could not be tried, or was not noticed as it should; the text says how."""


@dataclass(frozen=True)
class Breakage:
    """One line of the platform to break: where (`file`, from the root), what that does, and the test to notice it."""

    patch: Path
    breaks: str
    test: str
    file: str

    @property
    def name(self) -> str:
        """The patch's name."""
        return self.patch.stem


@dataclass(frozen=True)
class Run:
    """One run of a test: pytest's exit code, the failures' texts, whether anything else went wrong, and the output."""

    code: int
    failures: tuple[str, ...]
    errors: int
    output: str


@dataclass(frozen=True)
class Result:
    """How a breakage went: `fault` is None where its test noticed it."""

    breakage: Breakage
    fault: str | None
    seconds: float


def read(patch: Path) -> Breakage:
    """The breakage in a patch file: what it breaks, `Test: <node id>`, and a git diff of one line of src/optiinfra."""
    text = patch.read_text(encoding="utf-8")
    header, _, diff = text.partition("\ndiff --git ")
    tests = re.findall(r"^Test: (\S+::.+)$", header, re.MULTILINE)
    files = re.findall(r"^\+\+\+ b/(\S+)$", diff, re.MULTILINE)
    changed = re.findall(r"^[+-](?!\+\+ |-- )", diff, re.MULTILINE)
    breaks = header.partition("\n\n")[0].strip()
    if len(tests) != 1 or not breaks or breaks.startswith("Test:"):
        raise BreakageError(f"{patch.name}: wanted what it breaks, an empty line, and one `Test: <node id>`")
    if len(files) != 1 or not files[0].startswith("src/optiinfra/"):
        raise BreakageError(f"{patch.name}: wanted a git diff of one file under src/optiinfra, found {files}")
    if changed not in (["-", "+"], ["-"], ["+"]):
        raise BreakageError(f"{patch.name}: wanted one changed line, found {''.join(changed)!r}")
    return Breakage(patch, " ".join(breaks.split()), tests[0], files[0])


def chosen(word: str, folder: Path = FOLDER) -> list[Breakage]:
    """The breakages whose name or description holds the word, by name; BreakageError when there is none."""
    known = [read(patch) for patch in sorted(folder.glob("*.patch"))]
    found = [each for each in known if word.casefold() in f"{each.name} {each.breaks}".casefold()]
    if not found:
        names = ", ".join(each.name for each in known) or "none"
        raise BreakageError(f"no breakage holds {word!r}; there are: {names}")
    return found


def not_red(run: Run) -> str | None:
    """Why a run does not show that its test noticed the breakage; None if it does."""
    if run.code == PASSED:
        return "the test stayed green"
    if run.code != FAILED or run.errors or not run.failures:
        return f"the test could not be run (pytest's exit code {run.code}):\n{run.output}"
    for text in run.failures:
        places = _PLACE.findall(text)
        file, kind = places[-1] if places else ("an unknown place", "")
        missed = kind == "Failed" and "DID NOT RAISE" in text
        if not file.startswith("tests/") or not (kind == "AssertionError" or missed):
            return f"the test failed by {kind or 'something'} in {file}, not by an assertion of its own:\n{run.output}"
    return None


async def try_all(
    breakages: Sequence[Breakage], say: Callable[[Result], None], root: Path = paths.ROOT
) -> list[Result]:
    """Try breakages on the commit checked out in `root`, `AT_ONCE` at a time; `say` hears of each as it ends."""
    commit = git(root, "rev-parse", "HEAD")
    places = asyncio.Semaphore(AT_ONCE)
    with folder_for(root) as folder:

        async def attempt(breakage: Breakage) -> Result:
            async with places:
                began, fault = time.monotonic(), None
                try:
                    with worktree(root, commit, folder / breakage.name) as tree:
                        await _try(breakage, tree)
                except (BreakageError, GitError) as error:
                    fault = str(error)
                result = Result(breakage, fault, time.monotonic() - began)
            say(result)
            return result

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(attempt(breakage)) for breakage in breakages]
    return [task.result() for task in tasks]


async def _try(breakage: Breakage, tree: Path) -> None:
    """Run the test in the worktree without and with the breakage; BreakageError unless it goes from green to red."""
    await _check_sources(tree)
    before = await _run(breakage.test, tree)
    if before.code != PASSED:
        raise BreakageError(f"the test is not green as it is (pytest's exit code {before.code}):\n{before.output}")
    _break(breakage, tree)
    if fault := not_red(await _run(breakage.test, tree)):
        raise BreakageError(fault)


def _break(breakage: Breakage, tree: Path) -> None:
    try:
        git(tree, "apply", "--whitespace=nowarn", str(breakage.patch.resolve()))
    except GitError as error:
        raise BreakageError(f"the patch does not apply: {error}") from error
    # Bytecode is told from its source by size and second alone, which a small change made at once keeps.
    Path(cache_from_source(str(tree / breakage.file))).unlink(missing_ok=True)


async def _check_sources(tree: Path) -> None:
    """The project is installed from its own checkout as well; what is tested must be the worktree's."""
    _, output = await _python(tree, "-c", "import optiinfra; print(optiinfra.__file__)")
    if not Path(output.strip()).is_relative_to(tree / "src"):
        raise BreakageError(f"optiinfra would be imported from {output.strip()}, not from {tree / 'src'}")


async def _run(test: str, tree: Path) -> Run:
    """Run one test with the worktree's sources, always with the same random numbers."""
    report = tree / "breakage.xml"
    report.unlink(missing_ok=True)
    options = ["-q", "--no-header", "--tb=long", "-p", "no:randomly", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    deadline = f"--timeout={stretched(TEST_SECONDS):g}"
    code, output = await _python(tree, "-m", "pytest", *options, deadline, f"--junitxml={report}", test)
    if not report.exists():  # pytest could not even begin
        return Run(code, (), 1, output)
    document = ElementTree.parse(report)  # noqa: S314  (our own)
    failures = tuple(each.text or "" for each in document.iter("failure"))
    return Run(code, failures, len(list(document.iter("error"))), output)


async def _python(tree: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output of this Python in a worktree, with the worktree's sources before all others."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=tree,
        env=variables(tree),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    allowed = stretched(2 * TEST_SECONDS)
    try:
        async with asyncio.timeout(allowed):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise BreakageError(f"still running after {allowed:.0f} s: python {' '.join(arguments)}") from error
    finally:
        await _end(process)
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process that still runs: an interrupted pytest stops what its tests started."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(stretched(END_SECONDS)):
            await process.communicate()
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _stoppable(breakages: Sequence[Breakage], say: Callable[[Result], None]) -> list[Result]:
    """`try_all`, tidying up when asked to terminate as when interrupted."""
    task = asyncio.ensure_future(try_all(breakages, say))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def main() -> int:
    """Try the chosen breakages and print a table; 1 unless each turned exactly its test red, 130 when stopped."""
    parser = argparse.ArgumentParser(prog="python -m testbed.breakages", description=main.__doc__)
    parser.add_argument("-k", metavar="WORD", default="", help="only those whose name or description holds it")
    out, arguments = console(), parser.parse_args()
    try:
        breakages = chosen(arguments.k)
    except BreakageError as error:
        parser.error(str(error))
    if version().endswith("+dirty"):
        out.print("[yellow]what is not committed yet is left out: breakages are tried on the commit[/]")
    leftovers.clear(out.print)
    table = Table("breakage", Column("test that must go red", overflow="fold"), "result", "seconds")
    with Live(table, console=out, auto_refresh=False) as live:

        def say(result: Result) -> None:
            verdict = "[red]✗ not red[/]" if result.fault else "[green]✓ red[/]"
            table.add_row(result.breakage.name, escape(result.breakage.test), verdict, f"{result.seconds:.1f}")
            live.refresh()

        try:
            results = asyncio.run(_stoppable(breakages, say))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return STOPPED
    out.line()  # without a terminal the table ends without one
    wrong = [result for result in results if result.fault]
    for result in wrong:
        out.print(
            f"[red]✗ {result.breakage.name}[/] ({escape(result.breakage.breaks)})\n{escape(result.fault or '')}\n"
        )
    out.print(f"{len(results) - len(wrong)} of {len(results)} breakages turned exactly their test red")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
