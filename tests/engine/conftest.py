"""A home and an engine process for the tests; the engine is the real one."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from workbench.engine.client.client import EngineClient
from workbench.engine.client.process import ensure_engine, stop_engine
from workbench.engine.client.protocol import StopRequest
from workbench.errors import WorkbenchError
from workbench.planning.queue import QueueRequest
from workbench.storage.paths import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home whose engine serves all tests of a file: that file's ``home`` returns it.

    Starting an engine takes seconds of imports. A test that ends it costs the next one a start.
    """
    home = Home(tmp_path_factory.mktemp("engine") / "home")
    yield home
    asyncio.run(stop_engine(home))


@pytest.fixture
async def engine(home: Home, request: pytest.FixtureRequest) -> AsyncIterator[EngineClient]:
    """A client of a running engine."""
    await ensure_engine(home)
    client = EngineClient(home)
    yield client
    await client.close()
    if "shared_home" in request.fixturenames:
        await leave_as_found(home)
    else:
        await stop_engine(home)


async def leave_as_found(home: Home) -> None:
    """No queue, no run and no model: what a test leaves is not there for the next one."""
    client = EngineClient(home)
    # Where the test ended the engine there is nothing to tidy up in it.
    with suppress(WorkbenchError):
        home.queue.unlink(missing_ok=True)
        await client.edit_queue(QueueRequest(action="go"))
        with suppress(WorkbenchError):
            await client.stop(StopRequest(save=False))
        async with asyncio.timeout(60):
            while (await client.status()).state != "idle":
                await asyncio.sleep(0.02)
        await client.unload()
    await client.close()
    home.queue.unlink(missing_ok=True)
    shutil.rmtree(home.runs, ignore_errors=True)
