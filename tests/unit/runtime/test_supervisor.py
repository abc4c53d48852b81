"""Serving many customers in one process."""

import asyncio
import json
from pathlib import Path

import pytest

from optiinfra.runtime import customer, supervisor
from optiinfra.runtime.enrolment import Enrolment
from optiinfra.runtime.settings import RuntimeSettings
from optiinfra.runtime.supervisor import Supervisor
from tests.unit.logs import logged
from tests.unit.runtime.enrolments import enrol

pytestmark = pytest.mark.anyio


async def test_run_serves_a_customer_while_its_enrolment_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        while not folder.is_dir():  # noqa: ASYNC110  there is no event to wait for
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


async def test_run_retries_an_unwritable_status_file_and_logs_it_once(
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
            while not logs:  # noqa: ASYNC110  there is no event to wait for
                await asyncio.sleep(0.01)
            state.mkdir()
            while not (state / "runtime-status.json").exists():  # noqa: ASYNC110  as above
                await asyncio.sleep(0.01)
            stop.set()
            await running
    assert [entry["event"] for entry in logs] == ["status file not written"]
