"""Watches the engine, the live run and the hardware, keeps the newest state in the session and reports changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from screens.messages import JournalGrew, RunsRenamed, SampleTaken, StatusChanged
from workbench.errors import WorkbenchError
from workbench.failures.unforeseen import write_traceback

if TYPE_CHECKING:
    from textual.message import Message

    from screens.session import Session
    from workbench.engine.client.protocol import EngineStatus
    from workbench.machine.hardware import HardwareSampler
    from workbench.runs.folder import RunFolder
    from workbench.runs.replay import Replay

STATUS_SECONDS = 1.0
JOURNAL_SECONDS = 0.5
SAMPLE_SECONDS = 1.0
NAMES_SECONDS = 1.0


class Watch:
    """Keeps the session up to date. Each of its coroutines runs until it is cancelled.

    A disk or a driver that fails ends none of them: the next turn tries again, and each different problem is written to
    the terminal's log once.

    Args:
        session: is updated.
        tell: called with each change, after the session was updated.
    """

    def __init__(self, session: Session, tell: Callable[[Message], None]) -> None:
        self._session = session
        self._tell = tell
        self._run: str | None = None
        self._is_over = True
        self._told: tuple[Replay, int] | None = None
        self._asking = asyncio.Lock()
        self._sampler: HardwareSampler | None = None
        self._logged: set[str] = set()

    async def engine(self) -> None:
        """Read the engine's state each second; only changes are reported."""
        while True:
            await self._try(self._ask_engine(), "asking the engine")
            await asyncio.sleep(STATUS_SECONDS)

    async def journal(self) -> None:
        """Read what was added to the live run's journal; once more after its end, for the last events."""
        while True:
            await self._try(self._read_journal(), "reading the run's journal")
            await asyncio.sleep(JOURNAL_SECONDS)

    async def names(self) -> None:
        """Read the names of the runs that are shown; these are small files."""
        while True:
            await asyncio.sleep(NAMES_SECONDS)
            await self._try(self._read_names(), "reading the runs' names")

    async def hardware(self) -> None:
        """Read GPUs and host each second."""
        try:
            while True:
                await self._try(self._sample(), "reading GPUs and host")
                await asyncio.sleep(SAMPLE_SECONDS)
        finally:
            if self._sampler is not None:
                self._sampler.close()

    async def _try(self, turn: Coroutine[Any, Any, None], doing: str) -> None:
        """Do one turn; log an error of disk, driver or engine, unless it was logged before."""
        try:
            await turn
        except (OSError, WorkbenchError) as error:
            problem = f"{doing}: {error}"
            if problem not in self._logged:
                self._logged.add(problem)
                await asyncio.to_thread(write_traceback, error, doing, self._session.home.terminal_log)

    async def _ask_engine(self) -> None:
        async with self._asking:
            await self._update_status()

    async def _update_status(self) -> None:
        try:
            status = await self._session.engine.status()
        except (OSError, WorkbenchError):
            status = None
        is_news = status != self._session.status
        self._session.status = status
        if status is not None and status.run is not None and status.run != self._run:
            self._session.follow(await asyncio.to_thread(_run_folder, self._session, status))
            self._is_over = False
        self._run = status.run if status is not None else None
        if is_news:
            self._tell(StatusChanged(status))

    async def _read_journal(self) -> None:
        live = self._session.live
        if live is None or self._is_over:
            return
        is_last = self._run is None
        await live.catch_up(lambda: self._tell(JournalGrew(live.run.id)))
        if not is_last and live.replay.summary.state == "interrupted":
            # Before the screen says so: its keys follow the engine's status, which is up to a second old.
            await self._ask_engine()
        # Compared with what was told, not with what was read here: the Train tab reads the same journal when shown.
        if (told := (live.replay, live.replay.seq)) != self._told:
            self._told = told
            self._tell(JournalGrew(live.run.id))
        if is_last and live is self._session.live:
            self._is_over = True

    async def _read_names(self) -> None:
        if self._session.names.any_asked_for and await asyncio.to_thread(self._session.names.look):
            self._tell(RunsRenamed())

    async def _sample(self) -> None:
        if self._sampler is None:
            self._sampler = await asyncio.to_thread(_make_sampler)
            self._session.has_gpu_build = await asyncio.to_thread(_has_gpu_build)
        engine = self._session.status.pid if self._session.status is not None else None
        gpus, host = await asyncio.to_thread(self._sampler.sample, engine)
        self._session.gpus, self._session.host = tuple(gpus), host
        self._session.hardware_history.add(monotonic(), self._session.gpus, host)
        self._tell(SampleTaken(self._session.gpus, host))


def _run_folder(session: Session, status: EngineStatus) -> RunFolder:
    """The folder of the live run. Called in a thread: the import takes a while."""
    from workbench.runs.folder import RunFolder

    return RunFolder(Path(status.run_folder) if status.run_folder else session.home.runs / str(status.run))


def _make_sampler() -> HardwareSampler:
    from workbench.machine.hardware import HardwareSampler

    return HardwareSampler()


def _has_gpu_build() -> bool:
    from workbench.machine.torch_build import torch_supports_gpus

    return torch_supports_gpus()
