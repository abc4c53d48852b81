"""An answer that waits long ends when the service is asked to stop."""

import asyncio

import pytest
from fastapi import FastAPI

from optiinfra.kit.app import unless_stopping

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def app() -> FastAPI:
    made = FastAPI()
    made.state.stopping = asyncio.Event()
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

    assert await unless_stopping(app, work(), otherwise="stopping") == "done"


async def test_what_fails_fails(app: FastAPI) -> None:
    async def work() -> str:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await unless_stopping(app, work(), otherwise="stopping")


async def test_a_stop_ends_the_wait_and_the_work(app: FastAPI) -> None:
    ended: list[str] = []
    waiting = asyncio.create_task(unless_stopping(app, forever(ended), otherwise="stopping"))
    asyncio.get_running_loop().call_soon(app.state.stopping.set)
    assert await asyncio.wait_for(waiting, 5) == "stopping"
    assert ended == ["cancelled"]


async def test_a_caller_who_gives_up_ends_the_work_too(app: FastAPI) -> None:
    ended: list[str] = []
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(unless_stopping(app, forever(ended), otherwise="stopping"), 0.01)
    assert ended == ["cancelled"]
