# /// script
# dependencies = ["nox>=2025.10"]
# ///
"""Test sessions, each in its own virtualenv. Positional arguments are passed to pytest.

CI's matrix is made from this file (`src/testbed/ci.py`), by the tags `backends`, `pythons` and `manual`.
"""

import atexit
import contextlib
import fcntl
import functools
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import nox

nox.needs_version = ">=2025.10"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "test-results.xml"
SYSTEM_FOLDERS = ("tests/e2e", "tests/integration", "tests/performance", "tests/security")
SYSTEM_TESTS = 43
WORKFLOWS = ROOT / ".github" / "workflows"
PARALLEL = ("-n", "auto")
"""One pytest worker per core. A later `-n` among the positional arguments takes precedence."""
BY_MODULE = ("-n", str((os.cpu_count() or 1) + 1), "--dist", "loadfile", "--no-loadscope-reorder")
"""Each module in one worker, so that its fixtures, which may start an engine, are made once. Tests wait for engines at
times, so there is one worker more than cores. System tests begin (`testbed.exclusive`), not the largest modules."""


@functools.cache
def held_session() -> Path:
    """The folder of a session whose lock this process holds until it ends (`testbed.sessions`, not importable here).

    If nox is killed, `invoke clean` removes whatever names the session.
    """
    folder = ROOT / ".testenv" / f"{os.getpid()}-{secrets.token_hex(4)}.session"
    lock = folder / "lock"
    while not lock.exists():  # it may be removed before it is locked, as if its session had ended
        with contextlib.suppress(FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            fcntl.flock(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def install(session: nox.Session, extra: str) -> None:
    """Install the project with one of its extras at the pinned versions."""
    # Empty means unset: processes start much faster with bytecode.
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    session.env["OPTIINFRA_SESSION"] = str(held_session())
    session.install("-e", f".[{extra}]", "-c", "constraints.txt")


@contextmanager
def environment(
    session: nox.Session, *, coverage: bool = False, reuse: bool = True, browser: bool = False, extra: str = "system"
) -> Iterator[str]:
    """Build, start and check an environment, and yield its name. It is stopped and removed even after a failure.

    With `reuse`, a running environment with the same fingerprint is used and left running. With `browser`, Chromium
    must start, or nothing else does. Evidence is always saved.
    """
    began = time.time()
    install(session, extra)
    if browser:
        session.run("python", "-m", "testbed.chromium")
    flags = ["--coverage"] if coverage else []
    found = session.run("python", "-m", "testbed.reuse", *flags, silent=True) if reuse else None
    running = str(found or "").strip()
    name = running or f"{session.name}-{os.getpid()}"
    session.run("invoke", "build-all", "--name", name)
    if running:
        session.log(f"reusing the running environment {name!r}, started from the same source and settings")
    try:
        session.run("invoke", "start-test-env", "--name", name, *flags)
        session.run("invoke", "health-check", "--name", name)
        RESULTS.unlink(missing_ok=True)
        yield name
    finally:
        try:
            if not running:
                session.run("invoke", "stop-test-env", "--name", name)
            session.run("python", "-m", "testbed.evidence", session.name, "--name", name, f"--started={began}")
            if coverage and running:
                session.log(f"service coverage is written when environment {name!r} is stopped")
            elif coverage:
                session.run("python", "-m", "testbed.coverage_summary", session.name, "--name", name)
        finally:
            if not running:
                session.run("invoke", "clean", "--name", name)


def suite(
    session: nox.Session,
    *pytest_arguments: str,
    coverage: bool = False,
    reuse: bool = True,
    browser: bool = False,
    extra: str = "system",
) -> None:
    """Run pytest on an environment, then check the consistency of its stores."""
    with (
        environment(session, coverage=coverage, reuse=reuse, browser=browser, extra=extra) as name,
        consistent_afterwards(session, name),
    ):
        variables = {"OPTIINFRA_TESTENV": name, "OPTIINFRA_EVIDENCE": session.name}
        session.run("pytest", f"--junitxml={RESULTS}", *pytest_arguments, env=variables)


@contextmanager
def consistent_afterwards(session: nox.Session, name: str) -> Iterator[None]:
    """Save a consistency report afterwards. A dangling reference fails the session, unless its tests already failed."""
    codes = [0, 1]
    try:
        yield
        codes = [0]
    finally:
        session.run("python", "-m", "testbed.consistency", session.name, "--name", name, success_codes=codes)


def existing(*folders: str) -> list[str]:
    """Those of the folders that contain tests."""
    return [folder for folder in folders if any((ROOT / folder).glob("test_*.py"))]


def chosen(session: nox.Session, *defaults: str) -> list[str]:
    """The arguments for pytest: the positional ones, and the default folders unless these name tests."""
    named = any(argument.startswith("tests/") for argument in session.posargs)
    return [*([] if named else defaults), *session.posargs]


@nox.session(tags=["backends"])
def e2e(session: nox.Session) -> None:
    """The end-to-end scenarios, one after the other, with their output."""
    suite(session, "-s", "-v", "-p", "no:randomly", *chosen(session, "tests/e2e"), coverage=True)


@nox.session(tags=["backends"])
def integration(session: nox.Session) -> None:
    """The integration tests, in parallel."""
    suite(session, *PARALLEL, *chosen(session, "tests/integration"), coverage=True)


@nox.session(tags=["backends"])
def performance(session: nox.Session) -> None:
    """The performance tests, one after the other, on services without coverage, with their figures."""
    suite(session, "-s", "-v", *chosen(session, "tests/performance"))


@nox.session(tags=["backends"])
def security(session: nox.Session) -> None:
    """The security tests, in parallel."""
    suite(session, *PARALLEL, *chosen(session, "tests/security"), coverage=True, browser=True)


@nox.session(tags=["backends"])
def fast(session: nox.Session) -> None:
    """Unit and contract tests, and the short integration and security tests, on a live environment."""
    folders = [*existing("tests/contract", "tests/integration", "tests/security"), "tests/unit"]
    marks = "not slow and not e2e and not performance"
    suite(session, *BY_MODULE, "-m", marks, *chosen(session, *folders), extra="system,unit")
    session.log("e2e and performance tests do not run here: `nox -s test` runs all system tests")


@nox.session(tags=["backends"])
def test(session: nox.Session) -> None:
    """All system tests in a fresh environment, in parallel, with coverage and reports. Performance tests run alone."""
    folders = existing(*SYSTEM_FOLDERS)
    options = [*PARALLEL, "-v", "--durations=0", "--durations-min=0"]
    suite(session, *options, *chosen(session, *folders), coverage=True, reuse=False, browser=True)
    results = ElementTree.parse(RESULTS)  # noqa: S314  (our own)
    count = sum(1 for _ in results.iter("testcase"))
    session.log(f"{count} of {SYSTEM_TESTS} system tests exist so far; the gate comes with them")


@nox.session(tags=["pythons"])
def unit(session: nox.Session) -> None:
    """Unit tests, which need nothing but the code, in parallel."""
    install(session, "unit")
    session.run("pytest", *PARALLEL, *chosen(session, "tests/unit"))


@nox.session
def platform(session: nox.Session) -> None:
    """Platform tests: crashes, outages, rollback, bad input, other estates, commands and processes."""
    suite(session, *chosen(session, "tests/platform"))


@nox.session(tags=["manual"])
def bench(session: nox.Session) -> None:
    """Long measurements. `-- crash --runs N` kills processes at random moments and counts what was lost."""
    with environment(session) as name:
        arguments = session.posargs or ["crash"]
        session.run("python", "-m", "tests.bench", *arguments, env={"OPTIINFRA_TESTENV": name})


@nox.session
def mutants(session: nox.Session) -> None:
    """Mutation testing: each mutant of tests/mutants.toml must fail its test. `-- -k WORD`, `-- --changed [BASE]`."""
    install(session, "system,unit")
    # When interrupted it removes its worktrees, which takes a moment.
    session.run("python", "-m", "testbed.mutants", *session.posargs, interrupt_timeout=30, terminate_timeout=30)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting, import rules, and the CI workflow."""
    install(session, "lint")
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS.glob("*.yml")))
    session.run("zizmor", "--offline", "--quiet", str(WORKFLOWS.parent))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Strict type checks with mypy."""
    install(session, "types")
    session.run("mypy")


if __name__ == "__main__":
    nox.main()
