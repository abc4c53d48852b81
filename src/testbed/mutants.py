"""``python -m testbed.mutants [-k WORD] [--changed [BASE]]``: mutation testing with a fixed table of mutants.

`tests/mutants.toml` lists small defects (mutants) of the platform, each with the test that must detect it. Every test
gets a git worktree of the checked-out commit. There it must pass on the original source, and must fail by an assertion
of its own once a defect is in place: then the mutant is killed. Other tests may fail as well.
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
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import cache_from_source
from pathlib import Path
from xml.etree import ElementTree

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Column, Table

from testbed import orphans, paths
from testbed.console import console
from testbed.fingerprint import version
from testbed.waiting import stretched
from testbed.worktrees import GitError, git, temporary_folder, variables, worktree

TABLE = Path("tests/mutants.toml")
"""The table of mutants, relative to the repository root."""
CONCURRENCY = 2
TEST_SECONDS = 60.0
"""Timeout of one test, enforced by pytest. The pytest process as a whole gets twice as long."""
PERFORMANCE_SECONDS = 300.0
"""The same for a performance test."""
INTERRUPT_SECONDS = 10.0
"""Time for an interrupted pytest to stop the engines that it started."""
PASSED, FAILED = 0, 1  # pytest's exit codes
INTERRUPTED = 130

_LOCATION = re.compile(r"^(\S+\.py):\d+: (\w+)$", re.MULTILINE)


class MutantError(Exception):
    """The table is invalid, a selection is empty, or a mutant could not be run; the text says why."""


class Mutant(BaseModel):
    """One entry of the table: `old` occurs once in `file` (from the root) and is replaced by `new`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    description: str = Field(min_length=1)
    file: str = Field(pattern=r"^src/optiinfra/.+\.(py|html|js)$")
    old: str = Field(min_length=1)
    new: str
    test: str = Field(pattern=r"^tests/.+\.py::.+$")

    def apply(self, root: Path) -> str:
        """Put the defect into `file` below `root`; return the original source.

        MutantError unless `old` occurs exactly once.
        """
        path = root / self.file
        source = path.read_text(encoding="utf-8") if path.is_file() else ""
        if (count := source.count(self.old)) != 1:
            raise MutantError(f"the old text must occur once in {self.file}, but occurs {count} times")
        _write_source(path, source.replace(self.old, self.new))
        return source


class Status(StrEnum):
    """How a mutant ended."""

    KILLED = "killed"
    SURVIVED = "survived"
    ERROR = "could not run"


@dataclass(frozen=True)
class PytestRun:
    """One run of a test: pytest's exit code, the texts of its failures, the number of errors, and the output."""

    code: int
    failures: tuple[str, ...]
    errors: int
    output: str


@dataclass(frozen=True)
class Result:
    """The status of a mutant, with the reason unless it was killed."""

    mutant: Mutant
    status: Status
    reason: str
    seconds: float


def parse(text: str) -> list[Mutant]:
    """The mutants of a table in TOML. MutantError when it is invalid or a name is not unique."""
    try:
        document = tomllib.loads(text)
        mutants = [Mutant.model_validate(entry) for entry in document.get("mutant", [])]
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise MutantError(f"{TABLE}: {error}") from error
    names = Counter(mutant.name for mutant in mutants)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise MutantError(f"{TABLE}: names must be unique, but {', '.join(repeated)} occurs more than once")
    return mutants


def load(root: Path = paths.ROOT) -> list[Mutant]:
    """The mutants of a checkout."""
    return parse((root / TABLE).read_text(encoding="utf-8"))


def select(mutants: Sequence[Mutant], word: str) -> list[Mutant]:
    """The mutants whose name, description or file contains the word. MutantError when there is none."""
    word = word.casefold()
    selected = [each for each in mutants if word in f"{each.name} {each.description} {each.file}".casefold()]
    if not selected:
        names = ", ".join(each.name for each in mutants) or "none"
        raise MutantError(f"no mutant matches {word!r}; known mutants: {names}")
    return selected


def base_commit(root: Path, base: str | None) -> str | None:
    """The commit to compare with: the merge base with `base` (origin/main when None), else the parent commit.

    None where there is no parent either, as in a shallow clone. MutantError when a given `base` is unknown.
    """
    head = git(root, "rev-parse", "HEAD")
    try:
        found = git(root, "merge-base", base or "origin/main", "HEAD")
    except GitError as error:
        if base:
            raise MutantError(f"unknown base {base!r}: {error}") from error
        found = head
    if found != head or base:
        return found
    with contextlib.suppress(GitError):
        return git(root, "rev-parse", "--verify", "--quiet", "HEAD~1")
    return None


def changed(mutants: Sequence[Mutant], base: str, root: Path = paths.ROOT) -> list[Mutant]:
    """The mutants whose file, test module or table entry differs between the base commit and HEAD."""
    files = set(git(root, "diff", "--name-only", "--no-renames", base, "HEAD").splitlines())
    known: list[Mutant] = []
    with contextlib.suppress(GitError, MutantError):  # no table in that commit, or another format
        known = parse(git(root, "show", f"{base}:{TABLE}"))
    return [each for each in mutants if each not in known or not files.isdisjoint((each.file, _module(each.test)))]


def _module(test: str) -> str:
    return test.partition("::")[0]


def judge(run: PytestRun) -> tuple[Status, str]:
    """The verdict on a mutant from the run of its test, and the reason unless it was killed."""
    if run.code == PASSED:
        return Status.SURVIVED, "the test passed"
    if run.code != FAILED or run.errors or not run.failures:
        return Status.ERROR, f"the test could not be run (pytest's exit code {run.code}):\n{run.output}"
    for text in run.failures:
        locations = _LOCATION.findall(text)
        file, kind = locations[-1] if locations else ("an unknown place", "")
        not_raised = kind == "Failed" and "DID NOT RAISE" in text
        if not file.startswith("tests/") or not (kind == "AssertionError" or not_raised):
            reason = f"the test failed by {kind or 'something'} in {file}, not by an assertion of its own"
            return Status.ERROR, f"{reason}:\n{run.output}"
    return Status.KILLED, ""


async def try_all(mutants: Sequence[Mutant], report: Callable[[Result], None], root: Path = paths.ROOT) -> list[Result]:
    """Try mutants on the commit checked out in `root`, `CONCURRENCY` tests at a time; `report` gets each at once.

    The mutants of one test share a worktree, where the test runs once on the original source. Performance tests come
    last and run alone.
    """
    commit = git(root, "rev-parse", "HEAD")
    by_test: dict[str, list[Mutant]] = {}
    for mutant in mutants:
        by_test.setdefault(mutant.test, []).append(mutant)
    # The longest groups first, so that none of them is left over at the end.
    groups = sorted(by_test.values(), key=len, reverse=True)
    alone = [group for group in groups if _runs_alone(group[0].test)]
    together = [group for group in groups if group not in alone]
    semaphore = asyncio.Semaphore(CONCURRENCY)
    with temporary_folder() as folder:

        async def attempt(group: Sequence[Mutant]) -> list[Result]:
            results: list[Result] = []
            async with semaphore:
                started = time.monotonic()

                def add(mutant: Mutant, status: Status, reason: str) -> None:
                    nonlocal started
                    results.append(Result(mutant, status, reason, time.monotonic() - started))
                    report(results[-1])
                    started = time.monotonic()

                try:
                    with worktree(root, commit, folder / group[0].name) as tree:
                        await _require_passing(group[0].test, tree)
                        for mutant in group:
                            add(mutant, *await _try(mutant, tree))
                except (MutantError, GitError) as error:
                    for mutant in group[len(results) :]:
                        add(mutant, Status.ERROR, str(error))
            return results

        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(attempt(group)) for group in together]
        tried = [task.result() for task in running] + [await attempt(group) for group in alone]
    return [result for results in tried for result in results]


def _runs_alone(test: str) -> bool:
    return test.startswith("tests/performance/")


async def _require_passing(test: str, tree: Path) -> None:
    """MutantError unless the test passes on the original source."""
    await check_sources(tree)
    original = await _run(test, tree)
    if original.code != PASSED:
        code, output = original.code, original.output
        raise MutantError(f"the test does not pass on the original (pytest's exit code {code}):\n{output}")


async def _try(mutant: Mutant, tree: Path) -> tuple[Status, str]:
    """Run the mutant's test in the worktree with the defect in place, which is removed afterwards."""
    try:
        original = mutant.apply(tree)
    except MutantError as error:
        return Status.ERROR, str(error)
    try:
        return judge(await _run(mutant.test, tree))
    except MutantError as error:
        return Status.ERROR, str(error)
    finally:
        _write_source(tree / mutant.file, original)


def _write_source(path: Path, source: str) -> None:
    """Write a file and, of a Python file, remove the bytecode.

    Python compares bytecode with its source by size and second, which a quick, small edit may leave unchanged.
    """
    path.write_text(source, encoding="utf-8")
    if path.suffix == ".py":
        Path(cache_from_source(str(path))).unlink(missing_ok=True)


async def check_sources(tree: Path) -> None:
    """MutantError unless Python imports the worktree's sources rather than those of the installed checkout."""
    _, output = await _python(tree, "-c", "import optiinfra; print(optiinfra.__file__)")
    if not Path(output.strip()).is_relative_to(tree / "src"):
        raise MutantError(f"optiinfra would be imported from {output.strip()}, not from {tree / 'src'}")


async def _run(test: str, tree: Path) -> PytestRun:
    """Run one test with the worktree's sources and a fixed random seed."""
    report = tree / "mutant.xml"
    report.unlink(missing_ok=True)
    options = ["-q", "--no-header", "--tb=long", "-p", "no:randomly", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    seconds = PERFORMANCE_SECONDS if _runs_alone(test) else TEST_SECONDS
    options += [f"--timeout={stretched(seconds):g}", f"--junitxml={report}"]
    code, output = await _python(tree, "-m", "pytest", *options, test, seconds=2 * seconds)
    if not report.exists():  # pytest could not even start
        return PytestRun(code, (), 1, output)
    document = ElementTree.parse(report)  # noqa: S314  (our own)
    failures = tuple(each.text or "" for each in document.iter("failure"))
    return PytestRun(code, failures, len(list(document.iter("error"))), output)


async def _python(tree: Path, *arguments: str, seconds: float = TEST_SECONDS) -> tuple[int, str]:
    """Exit code and output of this Python in a worktree, whose sources come first on the path."""
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
    timeout = stretched(seconds)
    try:
        async with asyncio.timeout(timeout):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise MutantError(f"still running after {timeout:.0f} s: python {' '.join(arguments)}") from error
    finally:
        await _terminate(process)
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


async def _terminate(process: asyncio.subprocess.Process) -> None:
    """End a process that still runs. Interrupt it first, so that pytest can stop what its tests started."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(stretched(INTERRUPT_SECONDS)):
            await process.communicate()
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _try_all_until_terminated(mutants: Sequence[Mutant], report: Callable[[Result], None]) -> list[Result]:
    """`try_all`, which cleans up on SIGTERM as it does on Ctrl-C."""
    task = asyncio.ensure_future(try_all(mutants, report))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _selected(word: str, compare: bool, base: str | None) -> list[Mutant]:
    """The mutants that the command line asks for; with `compare` possibly none."""
    mutants = select(load(), word)
    if not compare:
        return mutants
    commit = base_commit(paths.ROOT, base)
    return mutants if commit is None else changed(mutants, commit)


def main() -> int:
    """Try the selected mutants and print a table. Exit code 1 unless all were killed, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m testbed.mutants", description=main.__doc__)
    parser.add_argument("-k", metavar="WORD", default="", help="only mutants whose name, description or file has it")
    parser.add_argument(
        "--changed",
        metavar="BASE",
        nargs="?",
        default=False,
        help="only mutants whose file, test or entry changed since the merge base with BASE (default: origin/main, "
        "or the parent commit when there is none)",
    )
    out, arguments = console(), parser.parse_args()
    try:
        mutants = _selected(arguments.k, arguments.changed is not False, arguments.changed or None)
    except MutantError as error:
        parser.error(str(error))
    if not mutants:
        out.print("no mutant's file, test or entry has changed")
        return 0
    if version().endswith("+dirty"):
        out.print("[yellow]uncommitted changes are ignored: mutants are made from the commit[/]")
    orphans.remove_all(out.print)
    try:
        results = _run_with_progress(out, mutants)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    alive = [result for result in results if result.status is not Status.KILLED]
    for result in alive:
        title = f"[red]✗ {result.mutant.name} {result.status}[/]: {escape(result.mutant.description)}"
        out.print(f"{title}\n{escape(result.reason)}\n")
    out.print(f"{len(results) - len(alive)} of {len(results)} mutants killed")
    return 1 if alive else 0


def _run_with_progress(out: Console, mutants: Sequence[Mutant]) -> list[Result]:
    """Try mutants and show each result as it comes: a row of a table, or without a terminal a line."""
    if not out.is_terminal:
        return asyncio.run(
            _try_all_until_terminated(mutants, lambda result: out.print(*_shown(result), soft_wrap=True))
        )
    table = Table("result", "seconds", "mutant", Column("test that must fail", overflow="fold"))
    with Live(table, console=out, auto_refresh=False) as live:

        def show(result: Result) -> None:
            table.add_row(*_shown(result))
            live.refresh()

        return asyncio.run(_try_all_until_terminated(mutants, show))


def _shown(result: Result) -> tuple[str, str, str, str]:
    color, sign = ("green", "✓") if result.status is Status.KILLED else ("red", "✗")
    status = f"[{color}]{sign} {result.status}[/]"
    return status, f"{result.seconds:6.1f}", result.mutant.name, escape(result.mutant.test)


if __name__ == "__main__":
    sys.exit(main())
