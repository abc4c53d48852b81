"""Git worktrees in the folder of a session, removed with it."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed import paths, sessions
from testbed.environment import scrubbed
from testbed.locks import try_lock


class GitError(Exception):
    """Git failed; the message is its stderr."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for worktrees, of the present session or one begun for this. A real path, as Python and git show it."""
    with sessions.hold() as session, tempfile.TemporaryDirectory(dir=session) as folder:
        yield Path(folder).resolve()


@contextmanager
def worktree(root: Path, commit: str, tree: Path) -> Iterator[Path]:
    """A worktree of a commit, removed whatever happens, with the environments that were started in it."""
    try:
        git(root, "worktree", "add", "--quiet", "--detach", str(tree), commit)
        yield tree
    finally:
        for environment in (tree / ".testenv").glob("*/environment.json"):
            _clean(tree, "--name", environment.parent.name)
        git(root, "worktree", "remove", "--force", str(tree))


def all_of(root: Path) -> list[Path]:
    """All worktrees of a repository, the main one included; none where there is no git."""
    with contextlib.suppress(GitError, FileNotFoundError):
        lines = git(root, "worktree", "list", "--porcelain").splitlines()
        return [Path(line.removeprefix("worktree ")) for line in lines if line.startswith("worktree ")]
    return []


def git(folder: Path, *arguments: str) -> str:
    """What git answers in a folder. GitError when it fails."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise GitError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def variables(tree: Path) -> dict[str, str]:
    """The environment variables of a Python in a worktree, which has to import the worktree's sources first."""
    sources = os.pathsep.join([str(tree / "src"), str(tree)])
    session = {sessions.VARIABLE: os.environ.get(sessions.VARIABLE, "")}
    return scrubbed(os.environ) | {"PYTHONPATH": sources} | session


def remove_orphaned(say: Callable[[str], None]) -> None:
    """Remove the folders of ended sessions, with the worktrees in them and what was started in those."""
    by_session: dict[Path, list[Path]] = {folder: [] for folder in sessions.all_folders()}
    for tree in all_of(paths.ROOT):
        for folder in tree.parents:
            if sessions.is_of_this_checkout(folder):
                by_session.setdefault(folder, []).append(tree)
    for session, trees in sorted(by_session.items()):
        if sessions.is_alive(session):
            continue
        # Before we lock the session: while it is locked, what names it is not orphaned.
        for tree in trees:
            _clean(tree)
        if lock := try_lock(sessions.lock_file(session)):
            with lock:
                for tree in trees:
                    _remove(tree, session, say)
                sessions.remove(session)


def _clean(tree: Path, *options: str) -> None:
    """Run `invoke clean` of a worktree, which removes what was started there."""
    with contextlib.suppress(FileNotFoundError):  # the worktree is gone
        command = [sys.executable, "-m", "invoke", "clean", *options]
        subprocess.run(command, cwd=tree, env=variables(tree), capture_output=True, check=False)


def _remove(tree: Path, session: Path, say: Callable[[str], None]) -> None:
    try:
        git(paths.ROOT, "worktree", "remove", "--force", "--force", str(tree))  # twice: locked while it is being added
    except GitError as error:  # such as an orphaned git that is still at work there
        say(f"orphaned worktree {tree} could not be removed now ({error})")
    else:
        say(f"removed orphaned worktree {tree}: the {sessions.describe(session)} has ended")
