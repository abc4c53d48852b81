"""Git worktrees to break things in: in a folder of the run's own, removed after it or, when it was killed, later."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from testbed import owners, paths
from testbed.environment import scrubbed
from testbed.owners import Owner


class GitError(Exception):
    """What git said."""


@contextmanager
def folder_for(root: Path) -> Iterator[Path]:
    """A temporary folder whose name says whose it is; by its real name, as Python and git call what lies in it."""
    this = Owner.of(psutil.Process())
    with tempfile.TemporaryDirectory(prefix=f"{_prefix(root)}{this.pid}-{this.started}-") as folder:
        yield Path(folder).resolve()


def _prefix(root: Path) -> str:
    return f"optiinfra-mutants-{hashlib.sha256(str(root).encode()).hexdigest()[:10]}-"


@contextmanager
def worktree(root: Path, commit: str, tree: Path) -> Iterator[Path]:
    """A worktree of a commit, removed whatever happens."""
    try:
        git(root, "worktree", "add", "--quiet", "--detach", str(tree), commit)
        yield tree
    finally:
        git(root, "worktree", "remove", "--force", str(tree))


def listed(root: Path) -> list[Path]:
    """All worktrees of a checkout; none where there is no git."""
    with contextlib.suppress(GitError, FileNotFoundError):
        listed = git(root, "worktree", "list", "--porcelain", "-z").split("\0")
        return [Path(line.removeprefix("worktree ")) for line in listed if line.startswith("worktree ")]
    return []


def git(folder: Path, *arguments: str) -> str:
    """What git answers in a folder. GitError when it fails."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise GitError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def variables(tree: Path) -> dict[str, str]:
    """What a Python in a worktree is told: where the sources lie, before all others, and whose it is."""
    sources = os.pathsep.join([str(tree / "src"), str(tree)])
    return scrubbed(os.environ) | {"PYTHONPATH": sources, owners.VARIABLE: owners.mark(os.getpid())}


def clear(say: Callable[[str], None], root: Path | None = None) -> None:
    """Remove the worktrees of dead runs, and what their tests started; not while somebody else is doing that."""
    root = root or paths.ROOT
    with _alone(root) as alone:
        if not alone:
            return
        for tree in listed(root):
            if _deserted(tree.parent, root):
                _remove(root, tree, say)
        for folder in Path(tempfile.gettempdir()).glob(f"{_prefix(root)}*"):
            if _deserted(folder, root):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _alone(root: Path) -> Iterator[bool]:
    """Whether nobody else is at it, nor will be meanwhile. The checkout itself is the lock: no file stays."""
    opened = os.open(root, os.O_RDONLY)
    try:
        yield _taken(opened)
    finally:
        os.close(opened)


def _taken(opened: int) -> bool:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(root: Path, tree: Path, say: Callable[[str], None]) -> None:
    # A worktree is a checkout: as far as it is there, it can clean up after itself.
    clean = [sys.executable, "-m", "invoke", "clean"]
    if tree.exists():
        subprocess.run(clean, cwd=tree, env=variables(tree), capture_output=True, check=False)
    try:
        git(root, "worktree", "remove", "--force", "--force", str(tree))  # even half-made ones, which are locked
    except GitError as error:  # such as a git that its dead run left at work there
        say(f"worktree {tree}, whose session is dead, could not be removed now ({error})")
    else:
        say(f"removed worktree {tree}, whose session is dead")


def _deserted(folder: Path, root: Path) -> bool:
    """Whether it was made by `folder_for` for a run that is dead."""
    prefix = _prefix(root)
    if not folder.name.startswith(prefix):
        return False
    pid, started, _ = folder.name.removeprefix(prefix).split("-", 2)
    return not Owner(int(pid), float(started)).alive
