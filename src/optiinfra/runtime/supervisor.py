"""Serves many customers in one process: follows the enrolment files and writes a status file."""

import asyncio
import json
from pathlib import Path

import structlog
import watchfiles

from optiinfra.api.common import now
from optiinfra.runtime import customer
from optiinfra.runtime.enrolment import Enrolment, Enrolments
from optiinfra.runtime.settings import RuntimeSettings

log = structlog.get_logger(__name__)

STATUS_SECONDS = 1.0


class Supervisor:
    """Starts a customer's connection when its enrolment is added or changed, and ends it when the file is removed."""

    def __init__(self, settings: RuntimeSettings) -> None:
        self._settings = settings
        self._served: dict[str, tuple[Enrolment, asyncio.Task[None]]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        folder = self._settings.runtime_enrolments
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status, enrolments = asyncio.create_task(self._write_status()), Enrolments(folder)
        try:
            self._follow(enrolments.read())
            # yield_on_timeout: a file added between the first read and the watch is seen at the first timeout.
            async for _ in watchfiles.awatch(
                folder, stop_event=stop, debounce=50, step=20, rust_timeout=1000, yield_on_timeout=True
            ):
                self._follow(enrolments.read())
        finally:
            tasks = [status, *(task for _, task in self._served.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self, wanted: dict[str, Enrolment]) -> None:
        for customer_id, (known, task) in list(self._served.items()):
            if wanted.get(customer_id) != known:
                task.cancel()
                del self._served[customer_id]
                log.info("customer connection ended", customer_id=customer_id)
        for customer_id, found in wanted.items():
            if customer_id not in self._served:
                task = asyncio.create_task(customer.serve(found, self._settings), name=customer_id)
                self._served[customer_id] = (found, task)

    async def _write_status(self) -> None:
        path, failing = self._settings.state_dir / "runtime-status.json", ""
        while True:
            serving = sum(not task.done() for _, task in self._served.values())
            status = {"version": self._settings.version, "customers": serving, "at": now().isoformat()}
            try:
                _replace(path, json.dumps(status))
                failing = ""
            except OSError as error:
                if str(error) != failing:
                    log.warning("status file not written", path=str(path), error=str(error))
                failing = str(error)
            await asyncio.sleep(STATUS_SECONDS)


def _replace(path: Path, text: str) -> None:
    """Replace a file atomically."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)
