"""A home and an engine process for the tests; the engine is the real one."""

from pathlib import Path

import pytest

from workbench.engine.client.client import EngineClient
from workbench.engine.client.process import ensure_engine, stop_engine
from workbench.storage.paths import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
async def engine(home: Home):
    """A client of a running engine."""
    await ensure_engine(home)
    client = EngineClient(home)
    yield client
    await client.close()
    await stop_engine(home)
