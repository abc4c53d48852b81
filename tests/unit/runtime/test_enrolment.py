"""Enrolment files: followed as they come and go, and not lost where one cannot be read for a while."""

import asyncio
import json
from pathlib import Path

import pytest

from optiinfra.runtime import customer, enrolment, supervisor
from optiinfra.runtime.enrolment import Enrolment, Enrolments
from optiinfra.runtime.settings import RuntimeSettings
from optiinfra.runtime.supervisor import Supervisor
from tests.unit.logs import logged

pytestmark = pytest.mark.anyio


def enrol(folder: Path, name: str, token: str = "t") -> Path:  # noqa: S107
    wanted = {"customer_id": name, "agent_token": token, "gateway_url": "http://g", "golden_prompts": "p"}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(wanted))
    return path


def test_what_is_no_enrolment_is_left_out_and_said_once_a_change(tmp_path: Path) -> None:
    enrol(tmp_path, "c")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "notes.txt").write_text("{")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    enrolments = Enrolments(tmp_path)
    with logged(enrolment) as logs:
        for _ in range(3):
            assert list(enrolments.read()) == ["c"]
        assert sorted(Path(entry["path"]).name for entry in logs) == ["broken.json", "folder.json"]
        broken.write_text('{"customer_id": "x", "agent_token": "secret-of-x"}')
        assert list(enrolments.read()) == ["c"]
    assert "gateway_url: Field required" in logs[-1]["wrong"]
    assert "secret-of-x" not in str(logs)


def test_an_enrolment_counts_until_its_file_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, enrolments = enrol(tmp_path, "c"), Enrolments(tmp_path)
    before = enrolments.read()
    path.write_text('{"customer_id": "c", "agent_')  # as seen while it is being written
    assert enrolments.read() == before
    enrol(tmp_path, "c", token="new")
    after = enrolments.read()
    assert after["c"].agent_token == "new"

    def refused(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        for method in ("read_bytes", "iterdir"):
            patched.setattr(Path, method, refused)
            assert enrolments.read() == after
    path.unlink()
    assert enrolments.read() == {}
    tmp_path.rmdir()
    assert enrolments.read() == {}


async def test_customers_come_and_go_with_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: asyncio.Queue[str] = asyncio.Queue()

    async def serve(found: Enrolment, _settings: RuntimeSettings) -> None:
        calls.put_nowait(f"serving {found.customer_id}")
        try:
            await asyncio.Event().wait()
        finally:
            calls.put_nowait(f"ended {found.customer_id}")

    monkeypatch.setattr(customer, "serve", serve)
    folder, stop = tmp_path / "enrolments", asyncio.Event()
    settings = RuntimeSettings(orchestrator_url="http://o", runtime_enrolments=folder, state_dir=tmp_path, version="v1")
    running = asyncio.create_task(Supervisor(settings).run(stop))
    async with asyncio.timeout(10):
        while not folder.is_dir():  # noqa: ASYNC110  the folder is all there is to see
            await asyncio.sleep(0.01)
        for name in ("a", "b"):
            enrol(folder, name)
            assert await calls.get() == f"serving {name}"
        (folder / "a.json").unlink()
        assert await calls.get() == "ended a"
        stop.set()
        await running
    assert calls.get_nowait() == "ended b"
    status = json.loads((tmp_path / "runtime-status.json").read_text())
    assert status["version"] == "v1"


async def test_a_status_that_cannot_be_written_is_said_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STATUS_SECONDS", 0.01)
    state, stop = tmp_path / "state", asyncio.Event()
    settings = RuntimeSettings(
        orchestrator_url="http://o", runtime_enrolments=tmp_path / "e", state_dir=state, version="v1"
    )
    with logged(supervisor) as logs:
        running = asyncio.create_task(Supervisor(settings).run(stop))
        async with asyncio.timeout(10):
            while not logs:  # noqa: ASYNC110  the log is all there is to see
                await asyncio.sleep(0.01)
            state.mkdir()
            while not (state / "runtime-status.json").exists():  # noqa: ASYNC110  as above
                await asyncio.sleep(0.01)
            stop.set()
            await running
    assert [entry["event"] for entry in logs] == ["the status cannot be written"]
