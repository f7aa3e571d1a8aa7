"""The clock of the screens' tests: it skips what nobody waits for."""

import asyncio
import gc
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.skipping_clock import SkippingLoop, skipped_time


def _in_real_time(item: pytest.Item) -> bool:
    return item.get_closest_marker("real_time") is not None


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Any]:
    return {"loop": asyncio.SelectorEventLoop if _in_real_time(item) else SkippingLoop}


@pytest.fixture(autouse=True)
def _clock(request: pytest.FixtureRequest) -> Iterator[None]:
    if _in_real_time(request.node):
        yield
        return
    with skipped_time():
        yield


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    """Each app keeps the collector from what is there when it starts: here, from the apps of all tests before it."""
    yield
    gc.unfreeze()
