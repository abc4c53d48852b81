"""What is removed after a session has ended, and what is not: with folders and processes, but no services."""

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from testbed import environment as environments
from testbed import orphans, paths, processes, sessions, startup, worktrees
from testbed.engines.settings import private_folder
from testbed.environment import Environment, Settings
from testbed.locks import locked
from testbed.waiting import wait_until
from tests.helpers.processes import Sleeper


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv(sessions.VARIABLE, raising=False)
    paths.ROOT.mkdir()


@pytest.fixture
def alive_session(own_folder: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A session that is alive, and that this process does not belong to."""
    with sessions.hold() as folder:
        monkeypatch.delenv(sessions.VARIABLE)
        yield folder


def describe(name: str, session: Path | None) -> Environment:
    """An environment as its start leaves it before the first process."""
    socket = private_folder("run", environments.env_id(name)) / "rpc.sock"
    made = dataclasses.replace(environments.create(name, Settings(), None, str(socket)), session=session)
    made.save()
    return made


def remove_all() -> str:
    said: list[str] = []
    orphans.remove_all(said.append)
    return "\n".join(said)


def environment_folders() -> list[str]:
    return sorted(path.name for path in paths.environments_dir().iterdir() if paths.NAME.fullmatch(path.name))


def test_everything_of_an_ended_session_is_removed_and_nothing_else(
    sleeper: Sleeper, tmp_path: Path, ended_session: Path, alive_session: Path
) -> None:
    parts = {}
    for name, session in (("orphaned", ended_session), ("alive", alive_session), ("persons", None)):
        made = describe(name, session)
        folder = private_folder("postgresql", made.env_id)
        (made.state_dir / "postgresql").symlink_to(folder)
        private_folder("postgresql", made.env_id)  # made by a start that was killed before it linked the folder
        parts[name] = sleeper(OPTIINFRA_ENV_ID=made.env_id)
    others = sleeper(OPTIINFRA_ENV_ID="orphaned-0123456789")  # another checkout's
    (tmp_path / "optiinfra-run-0123456789-abcdefgh").mkdir()

    said = remove_all()

    assert "removed orphaned environment 'orphaned': the session of process 4711 has ended" in said
    assert processes.describe(parts["alive"].pid) not in said
    assert not processes.is_alive(parts["orphaned"])
    assert all(processes.is_alive(process) for process in (parts["alive"], parts["persons"], others))
    assert environment_folders() == ["alive", "persons"]
    assert sessions.all_folders() == {alive_session}
    kinds = ("run", "postgresql", "postgresql")
    kept = [f"optiinfra-{kind}-{paths.digest(name)}" for name in ("alive", "persons") for kind in kinds]
    left = [path.name.rpartition("-")[0] for path in tmp_path.glob("optiinfra-*")]
    assert sorted(left) == sorted([*kept, "optiinfra-run-0123456789"])


def test_only_processes_of_ended_sessions_of_this_checkout_are_ended(
    sleeper: Sleeper, ended_session: Path, alive_session: Path, tmp_path: Path
) -> None:
    orphaned = sleeper(**{sessions.VARIABLE: str(ended_session)})
    removed = sleeper(**{sessions.VARIABLE: str(paths.environments_dir() / "4712-removed.session")})
    others = [
        sleeper(**{sessions.VARIABLE: str(folder)})
        for folder in (alive_session, tmp_path / "another-checkout" / ".testenv" / "1-a.session", "")
    ]
    expected = [f"terminated orphaned {processes.describe(process.pid)}" for process in (orphaned, removed)]
    assert sorted(remove_all().splitlines()) == sorted(expected)
    assert not processes.is_alive(orphaned)
    assert not processes.is_alive(removed)
    assert all(processes.is_alive(process) for process in others)


def test_a_process_does_not_find_itself_nor_its_ancestors(ended_session: Path) -> None:
    code = (
        f"from testbed import orphans, paths; paths.ROOT = __import__('pathlib').Path({str(paths.ROOT)!r})\n"
        "orphans.remove_all(print)"
    )
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], check=True)"
    variables = os.environ | {sessions.VARIABLE: str(ended_session)}
    done = subprocess.run([sys.executable, "-c", outer], env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_environment_of_a_session_held_by_an_orphaned_process_is_removed_too(
    sleeper: Sleeper, ended_session: Path
) -> None:
    code = (
        f"from testbed import paths, sessions; paths.ROOT = __import__('pathlib').Path({str(paths.ROOT)!r})\n"
        f"__import__('os').environ.pop('{sessions.VARIABLE}')\n"
        "with sessions.hold(): __import__('time').sleep(600)"
    )
    process = sleeper(code, **{sessions.VARIABLE: str(ended_session)})
    (held,) = wait_until(lambda: list(filter(sessions.is_alive, sessions.all_folders())), "its session", 20)
    describe("own", held)
    ended = f"terminated orphaned {processes.describe(process.pid)}"
    said = remove_all()
    assert ended in said
    assert "removed orphaned environment 'own'" in said
    assert not paths.environments_dir().exists()


def test_a_start_that_was_killed_before_it_wrote_anything_leaves_nothing() -> None:
    paths.state_dir("folder-only").mkdir(parents=True)
    paths.lock_file("lock-only").touch()
    assert "removed orphaned environment 'folder-only': it is not described" in remove_all()
    assert not paths.environments_dir().exists()


def test_environment_that_is_not_described_yet_is_left_alone_while_its_lock_is_held() -> None:
    with locked("starting"):
        paths.state_dir("starting").mkdir(parents=True)
        assert remove_all() == ""
        assert paths.state_dir("starting").exists()


def test_processes_whose_folder_was_deleted_are_ended(sleeper: Sleeper) -> None:
    process = sleeper(OPTIINFRA_ENV_ID=environments.env_id("deleted"))
    assert "removed orphaned environment 'deleted': it is not described" in remove_all()
    assert not processes.is_alive(process)


def test_an_unreadable_environment_is_named_and_left_until_it_is_cleaned_by_name(sleeper: Sleeper) -> None:
    made = describe("mine", None)
    process = sleeper(OPTIINFRA_ENV_ID=made.env_id)
    environments.description("mine").write_text('{"name": "mi')
    said = remove_all()
    assert "environment 'mine' was left alone" in said
    assert "run `invoke clean --name mine`" in said
    assert processes.is_alive(process)

    startup.clean("mine", print)
    assert not processes.is_alive(process)
    assert not paths.environments_dir().exists()
    assert list(paths.ROOT.parent.glob("optiinfra-*")) == []


def test_cleaning_copes_with_stale_pids_dangling_links_and_nothing_at_all() -> None:
    made = describe("mine", None)
    (made.state_dir / "supervisord.pid").write_text(str(os.getpid()))
    (made.state_dir / "postgresql").symlink_to("/nowhere/at/all")
    startup.clean("mine", print)
    startup.clean("mine", print)
    assert not paths.environments_dir().exists()
    assert processes.is_alive(psutil.Process())


def test_a_folder_is_not_removed_because_a_description_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for socket in ("", str(tmp_path / "rpc.sock")):
        dataclasses.replace(describe("mine", None), supervisor_socket=socket).save()
        startup.clean("mine", print)
        assert tmp_path.exists()


@pytest.fixture
def repository() -> Path:
    """The checkout, with a commit in it."""
    worktrees.git(paths.ROOT, "init", "-q")
    author = ("-c", "user.name=t", "-c", "user.email=t@example.test")
    worktrees.git(paths.ROOT, *author, "commit", "-q", "--no-verify", "--allow-empty", "-m", "nothing")
    return paths.ROOT


def add_worktree(session: Path, name: str) -> Path:
    """A worktree of a session that was killed before it removed it."""
    tree = session / "mutants" / name
    worktrees.git(paths.ROOT, "worktree", "add", "-q", "--detach", str(tree), "HEAD")
    return tree


def test_worktrees_of_an_ended_session_are_removed_and_those_of_another_are_not(
    repository: Path, ended_session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with worktrees.temporary_folder() as folder, worktrees.worktree(repository, "HEAD", folder / "kept") as kept:
        monkeypatch.delenv(sessions.VARIABLE)
        killed = add_worktree(ended_session, "killed")
        (ended_session / "not-a-worktree").mkdir()
        deleted = add_worktree(paths.environments_dir() / "4712-deleted.session", "deleted")
        shutil.rmtree(deleted.parents[1])
        said = remove_all()
        assert f"removed orphaned worktree {killed}: the session of process 4711 has ended" in said
        assert f"removed orphaned worktree {deleted}: the session of process 4712 has ended" in said
        assert worktrees.all_of(repository) == [repository, kept]
        assert sessions.all_folders() == {folder.parent}


def test_concurrent_cleans_remove_a_worktree_once(
    repository: Path, ended_session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = add_worktree(ended_session, "tree")
    said: list[str] = []
    git = worktrees.git

    def meanwhile(folder: Path, *arguments: str) -> str:
        if arguments[:2] == ("worktree", "remove"):
            monkeypatch.setattr(worktrees, "git", git)
            worktrees.remove_orphaned(said.append)
        return git(folder, *arguments)

    monkeypatch.setattr(worktrees, "git", meanwhile)
    worktrees.remove_orphaned(said.append)
    assert said == [f"removed orphaned worktree {tree}: the session of process 4711 has ended"]
    assert not tree.exists()


def test_a_worktree_that_git_does_not_remove_is_named_and_does_not_block_others(
    repository: Path, ended_session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = [add_worktree(ended_session, name) for name in ("first", "second")]
    git = worktrees.git

    def refusing(folder: Path, *arguments: str) -> str:
        if arguments[-1] == str(trees[0]):
            raise worktrees.GitError("git worktree: failed to delete: Directory not empty")
        return git(folder, *arguments)

    monkeypatch.setattr(worktrees, "git", refusing)
    said = remove_all()
    assert f"orphaned worktree {trees[0]} could not be removed now (git worktree: failed" in said
    assert f"removed orphaned worktree {trees[1]}" in said
    monkeypatch.setattr(worktrees, "git", git)
    assert f"removed orphaned worktree {trees[0]}" in remove_all()
    assert worktrees.all_of(repository) == [repository]
