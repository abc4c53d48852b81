"""What is removed after the death of a session, and what is not: with folders and processes, but no services."""

import dataclasses
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from testbed import environment as environments
from testbed import leftovers, owners, paths, processes, startup, worktrees
from testbed.engines.settings import private_folder
from testbed.environment import Environment, Settings
from testbed.locks import locked
from testbed.owners import Owner
from tests.unit.testbed.conftest import Sleeper

Described = Callable[[str, Owner | None], Environment]
LIVING = Owner.of(psutil.Process())


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv(owners.VARIABLE, raising=False)
    paths.ROOT.mkdir()


@pytest.fixture
def gone(dead: int) -> Owner:
    """A session that is dead."""
    return Owner(dead, LIVING.started)


def described(name: str, owner: Owner | None) -> Environment:
    """An environment as its start leaves it before the first process."""
    socket = private_folder("run", environments.env_id(name)) / "rpc.sock"
    made = dataclasses.replace(environments.create(name, Settings(), None, str(socket)), owner=owner)
    made.save()
    return made


def clear() -> str:
    said: list[str] = []
    leftovers.clear(said.append)
    return "\n".join(said)


def test_all_that_a_dead_session_had_goes_and_nothing_else(sleeper: Sleeper, tmp_path: Path, gone: Owner) -> None:
    parts = {}
    for name, owner in (("orphan", gone), ("living", LIVING), ("persons", None)):
        made = described(name, owner)
        folder = private_folder("postgresql", made.env_id)
        (made.state_dir / "postgresql").symlink_to(folder)
        private_folder("postgresql", made.env_id)  # made by a start that died before it linked it
        parts[name] = sleeper(OPTIINFRA_ENV_ID=made.env_id)
    others = sleeper(OPTIINFRA_ENV_ID="orphan-0123456789")  # another checkout's
    (tmp_path / "optiinfra-run-0123456789-abcdefgh").mkdir()

    said = clear()

    assert f"removed environment 'orphan': process {gone.pid}, which started it for itself, is dead" in said
    assert processes.in_words(parts["living"].pid) not in said
    assert not processes.lives(parts["orphan"])
    assert all(processes.lives(process) for process in (parts["living"], parts["persons"], others))
    assert sorted(path.name for path in paths.environments_dir().iterdir() if path.is_dir()) == ["living", "persons"]
    kinds = ("run", "postgresql", "postgresql")
    kept = [f"optiinfra-{kind}-{paths.digest(name)}" for name in ("living", "persons") for kind in kinds]
    left = [path.name.rpartition("-")[0] for path in tmp_path.glob("optiinfra-*")]
    assert sorted(left) == sorted([*kept, "optiinfra-run-0123456789"])


def test_who_worked_for_the_dead_is_ended_and_so_is_what_he_had(sleeper: Sleeper, gone: Owner) -> None:
    pytest_of_it = sleeper(**{owners.VARIABLE: owners.mark(gone.pid)})
    described("pytest-own", Owner.of(pytest_of_it))
    words = processes.in_words(pytest_of_it.pid)
    said = clear()
    assert f"ended {words}, whose session is dead" in said
    assert "removed environment 'pytest-own'" in said
    assert not paths.environments_dir().exists()


def test_a_start_that_died_before_it_wrote_anything_leaves_nothing() -> None:
    paths.state_dir("folder-only").mkdir(parents=True)
    paths.lock_file("lock-only").touch()
    assert "removed environment 'folder-only': nothing describes it" in clear()
    assert not paths.environments_dir().exists()


def test_a_start_that_is_about_to_write_is_left_alone(sleeper: Sleeper) -> None:
    with locked("starting"):
        paths.state_dir("starting").mkdir(parents=True)
        assert clear() == ""
        assert paths.state_dir("starting").exists()


def test_processes_whose_folder_was_deleted_are_ended(sleeper: Sleeper) -> None:
    process = sleeper(OPTIINFRA_ENV_ID=environments.env_id("deleted"))
    assert "removed environment 'deleted': nothing describes it" in clear()
    assert not processes.lives(process)


def test_what_cannot_be_read_is_named_and_left_until_it_is_cleaned_by_name(sleeper: Sleeper) -> None:
    made = described("mine", None)
    process = sleeper(OPTIINFRA_ENV_ID=made.env_id)
    environments.description("mine").write_text('{"name": "mi')
    said = clear()
    assert "left alone, for nobody can tell whose it is" in said
    assert "run `invoke clean --name mine`" in said
    assert processes.lives(process)

    startup.clean("mine", print)
    assert not processes.lives(process)
    assert not paths.environments_dir().exists()
    assert list(paths.ROOT.parent.glob("optiinfra-*")) == []


def test_cleaning_copes_with_stale_pids_dangling_links_and_nothing_at_all() -> None:
    made = described("mine", None)
    (made.state_dir / "supervisord.pid").write_text(str(os.getpid()))
    (made.state_dir / "postgresql").symlink_to("/nowhere/at/all")
    startup.clean("mine", print)
    startup.clean("mine", print)
    assert not paths.environments_dir().exists()
    assert processes.lives(psutil.Process())


def test_a_folder_is_not_removed_because_a_description_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for socket in ("", str(tmp_path / "rpc.sock")):
        dataclasses.replace(described("mine", None), supervisor_socket=socket).save()
        startup.clean("mine", print)
        assert tmp_path.exists()


@pytest.fixture
def repository() -> Path:
    """The checkout, with a commit in it."""
    worktrees.git(paths.ROOT, "init", "-q")
    who = ("-c", "user.name=t", "-c", "user.email=t@example.test")
    worktrees.git(paths.ROOT, *who, "commit", "-q", "--no-verify", "--allow-empty", "-m", "nothing")
    return paths.ROOT


def test_the_worktrees_of_a_dead_run_go_and_a_living_ones_stay(repository: Path, tmp_path: Path, gone: Owner) -> None:
    root = repository
    with worktrees.folder_for(root) as living, worktrees.worktree(root, "HEAD", living / "kept"):
        this = f"-{LIVING.pid}-{LIVING.started}-"
        assert this in living.name
        dead = living.with_name(living.name.replace(this, f"-{gone.pid}-{gone.started}-"))
        lost = living.with_name(living.name.replace(this, f"-{gone.pid}-{gone.started + 9}-"))
        for tree in (dead / "killed", lost / "gone"):
            worktrees.git(root, "worktree", "add", "-q", "--detach", str(tree), "HEAD")
        (dead / "not-a-tree").mkdir()
        lost.rename(tmp_path / "elsewhere")
        assert "killed" in clear()
        listed = worktrees.git(root, "worktree", "list").splitlines()
        assert [line.split()[0] for line in listed] == [str(root), str(living / "kept")]
        assert not dead.exists()


def deserted_tree(root: Path, owner: Owner) -> Path:
    """A worktree of a run that is dead."""
    with worktrees.folder_for(root) as living:
        dead = living.with_name(
            living.name.replace(f"-{LIVING.pid}-{LIVING.started}-", f"-{owner.pid}-{owner.started}-")
        )
    worktrees.git(root, "worktree", "add", "-q", "--detach", str(dead / "tree"), "HEAD")
    return dead / "tree"


def test_two_that_look_at_once_remove_a_worktree_once(
    repository: Path, gone: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = deserted_tree(repository, gone)
    said: list[str] = []
    git = worktrees.git

    def meanwhile(folder: Path, *arguments: str) -> str:
        if arguments[:2] == ("worktree", "remove"):
            monkeypatch.setattr(worktrees, "git", git)
            worktrees.clear(said.append)
        return git(folder, *arguments)

    monkeypatch.setattr(worktrees, "git", meanwhile)
    worktrees.clear(said.append)
    assert said == [f"removed worktree {tree}, whose session is dead"]
    assert not tree.exists()


def test_a_worktree_that_git_does_not_remove_is_named_and_hinders_no_other(
    repository: Path, gone: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = [deserted_tree(repository, gone) for _ in range(2)]
    git = worktrees.git

    def refusing(folder: Path, *arguments: str) -> str:
        if arguments[-1] == str(trees[0]):
            raise worktrees.GitError("git worktree: failed to delete: Directory not empty")
        return git(folder, *arguments)

    monkeypatch.setattr(worktrees, "git", refusing)
    said = clear()
    assert f"worktree {trees[0]}, whose session is dead, could not be removed now (git worktree: failed" in said
    assert f"removed worktree {trees[1]}" in said
    monkeypatch.setattr(worktrees, "git", git)
    assert f"removed worktree {trees[0]}" in clear()
    assert worktrees.listed(repository) == [repository]
