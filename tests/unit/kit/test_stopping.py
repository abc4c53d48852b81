"""An answer that waits long ends when the service is asked to stop."""

import asyncio

import pytest
from fastapi import FastAPI

from optiinfra.kit.app import cancel_on_shutdown

pytestmark = pytest.mark.anyio


@pytest.fixture
def app() -> FastAPI:
    made = FastAPI()
    made.state.shutdown = asyncio.Event()
    return made


async def forever(ended: list[str]) -> str:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("cancelled")
    return "never"


async def test_what_is_ready_is_answered(app: FastAPI) -> None:
    async def work() -> str:
        return "done"

    assert await cancel_on_shutdown(app, work(), default="stopping") == "done"


async def test_what_fails_fails(app: FastAPI) -> None:
    async def work() -> str:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await cancel_on_shutdown(app, work(), default="stopping")


async def test_a_stop_ends_the_wait_and_the_work(app: FastAPI) -> None:
    ended: list[str] = []
    waiting = asyncio.create_task(cancel_on_shutdown(app, forever(ended), default="stopping"))
    asyncio.get_running_loop().call_soon(app.state.shutdown.set)
    assert await asyncio.wait_for(waiting, 5) == "stopping"
    assert ended == ["cancelled"]


async def test_a_caller_who_gives_up_ends_the_work_too(app: FastAPI) -> None:
    ended: list[str] = []
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(cancel_on_shutdown(app, forever(ended), default="stopping"), 0.01)
    assert ended == ["cancelled"]
