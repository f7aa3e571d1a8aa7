"""A disk, a driver or an engine that fails for a while: what the app watches goes on, and the log tells it once."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from screens.session import Session
from screens.shell import watch
from screens.shell.watch import Watch
from tests.screens.scripted import ScriptedEngine
from workbench.errors import WorkbenchError
from workbench.machine.hardware import HardwareSampler
from workbench.recipe.schema import Recipe
from workbench.storage.paths import Home


@pytest.fixture(autouse=True)
def _no_time_between_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATUS_SECONDS", "JOURNAL_SECONDS", "SAMPLE_SECONDS", "NAMES_SECONDS"):
        monkeypatch.setattr(watch, name, 0.001)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    home = Home(tmp_path)
    return Session(home, ScriptedEngine(home))


async def turned(session: Session, *loops: str, until: Callable[[], object], log: Callable[[], object]) -> str:
    """Run loops of a watch until the log tells something, and on until something holds; returns the log."""
    keep = Watch(session, lambda message: None)
    tasks = [asyncio.create_task(getattr(keep, name)()) for name in loops]
    try:
        async with asyncio.timeout(20):
            while not session.home.terminal_log.exists():
                await asyncio.sleep(0)
            log()
            while not until():
                assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
                await asyncio.sleep(0)
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    return session.home.terminal_log.read_text(encoding="utf-8")


class Failing:
    """Fails a number of times before it does what it stands for."""

    def __init__(self, error: Exception, times: int, do: Callable[..., Any]) -> None:
        self.error, self.left, self.do = error, times, do
        self.done = 0

    def __call__(self, *arguments: Any) -> Any:
        if self.left:
            self.left -= 1
            raise self.error
        self.done += 1
        return self.do(*arguments)


async def test_a_journal_that_cannot_be_read_for_a_while(session: Session) -> None:
    engine = session.engine
    assert isinstance(engine, ScriptedEngine)
    run = engine.begin(Recipe(), max_steps=20)
    engine.step(1, 1.0)
    aside = run.journal.rename(run.path / "aside")
    run.journal.mkdir()

    def mended() -> None:
        run.journal.rmdir()
        aside.rename(run.journal)

    def is_read() -> bool:
        return session.summary is not None and session.summary.step == 1

    log = await turned(session, "engine", "journal", until=is_read, log=mended)
    assert log.count("failed while reading the run's journal") == 1
    assert "IsADirectoryError" in log


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), WorkbenchError("No.", kind="own")])
async def test_hardware_that_cannot_be_read_for_a_while(
    session: Session, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Failing(error, 50, HardwareSampler.sample)
    closed: list[bool] = []
    monkeypatch.setattr(HardwareSampler, "sample", lambda self, pid=None: reading(self, pid))
    monkeypatch.setattr(HardwareSampler, "close", lambda self: closed.append(True))
    log = await turned(session, "hardware", until=lambda: reading.done > 1, log=lambda: None)
    assert log.count("failed while reading GPUs and host") == 1
    assert session.host is not None
    assert closed == [True]


async def test_names_that_cannot_be_read_for_a_while(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.names.of("run-01")
    looking = Failing(OSError(116, "Stale file handle"), 50, session.names.look)
    monkeypatch.setattr(session.names, "look", looking)
    log = await turned(session, "names", until=lambda: looking.done > 1, log=lambda: None)
    assert log.count("failed while reading the runs' names") == 1


async def test_an_engine_whose_folder_cannot_be_looked_at_is_none(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()
    status = session.engine.status

    async def refused() -> object:
        if asked.is_set():
            return await status()
        asked.set()
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(session.engine, "status", refused)
    keep = Watch(session, lambda message: None)
    task = asyncio.create_task(keep.engine())
    async with asyncio.timeout(20):
        while session.status is None:
            assert not task.done()
            await asyncio.sleep(0)
    task.cancel()
