"""What goes on outside the terminal (the engine, the live run, the hardware): read, kept in the session, passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from screens.messages import JournalGrew, RunsRenamed, SampleTaken, StatusChanged
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from textual.message import Message

    from screens.session import Session
    from workbench.engine.client.protocol import EngineStatus
    from workbench.machine.gpu import HardwareSampler
    from workbench.runs.folder import RunSummary
    from workbench.runs.journal import Event, JournalReader

STATUS_SECONDS = 1.0
JOURNAL_SECONDS = 0.5
SAMPLE_SECONDS = 1.0
NAMES_SECONDS = 1.0
JOURNAL_BITE = 1 << 18
"""Bytes of a journal that are read at a time; keys are heard between two bites of a long one."""


class Watch:
    """Keeps the session up to date. Each of its coroutines runs until it is cancelled.

    Args:
        session: where the newest is kept.
        tell: takes each change, after it was kept.
    """

    def __init__(self, session: Session, tell: Callable[[Message], None]) -> None:
        self._session = session
        self._tell = tell
        self._run: str | None = None
        self._journal: JournalReader | None = None
        self._past: asyncio.Task[None] | None = None
        # What was read while the past of the run was not known.
        self._news: list[Event] = []

    async def engine(self) -> None:
        """Ask for the engine's state each second; only what differs is passed on."""
        while True:
            try:
                status = await self._session.engine.status()
            except WorkbenchError:
                status = None
            if status != self._session.status:
                self._session.status = status
                if status is not None and status.run is not None and status.run != self._run:
                    self._journal, self._session.summary = await asyncio.to_thread(_open, self._session, status)
                self._run = status.run if status is not None else None
                self._tell(StatusChanged(status))
            await asyncio.sleep(STATUS_SECONDS)

    async def journal(self) -> None:
        """Read what the live run has added; once more after its end, so that its last events are not missed."""
        while True:
            reader, summary = self._journal, self._session.summary
            if reader is not None and summary is not None:
                is_over = self._run is None
                while (events := await asyncio.to_thread(reader.read, JOURNAL_BITE)) and reader is self._journal:
                    for event in events:
                        summary.add(event)
                    self._news += events
                    self._tell(JournalGrew(summary.id, events))
                if not summary.is_rough:
                    self._news.clear()
                elif self._past is None or self._past.done():
                    self._past = asyncio.create_task(self._add_the_past(summary, reader.path))
                if is_over and reader is self._journal:
                    self._journal = None
            await asyncio.sleep(JOURNAL_SECONDS)

    async def _add_the_past(self, rough: RunSummary, journal: Path) -> None:
        """What was read at its end only is read as a whole, while the run goes on."""
        whole = await asyncio.to_thread(_summarise, journal)
        for event in self._news:  # some are in it already, which changes nothing
            whole.add(event)
        if self._session.summary is rough:
            self._session.summary = whole

    async def names(self) -> None:
        """Read what the runs in titles are called; small files, and only of runs that a title named."""
        while True:
            await asyncio.sleep(NAMES_SECONDS)
            if self._session.names.any_asked_for and await asyncio.to_thread(self._session.names.look):
                self._tell(RunsRenamed())

    async def hardware(self) -> None:
        """Read GPUs and host each second."""
        sampler = await asyncio.to_thread(_make_sampler)
        while True:
            engine = self._session.status.pid if self._session.status is not None else None
            gpus, host = await asyncio.to_thread(sampler.sample, engine)
            self._session.gpus, self._session.host = tuple(gpus), host
            self._tell(SampleTaken(self._session.gpus, host))
            await asyncio.sleep(SAMPLE_SECONDS)


def _open(session: Session, status: EngineStatus) -> tuple[JournalReader, RunSummary]:
    """The journal of the live run and its summary: from its start, or where it is long from its end and at a glance."""
    from workbench.runs.folder import RunFolder, RunSummary, summarise
    from workbench.runs.journal import JournalReader
    from workbench.runs.journal_sample import is_long

    run = str(status.run)
    folder = RunFolder(Path(status.run_folder) if status.run_folder else session.home.runs / run)
    if not is_long(folder.journal):
        return JournalReader(folder.journal), RunSummary(run)
    reader = JournalReader.of_what_comes(folder.journal)
    return reader, summarise(folder, soon=True)


def _summarise(journal: Path) -> RunSummary:
    from workbench.runs.folder import RunFolder, summarise

    return summarise(RunFolder(journal.parent))


def _make_sampler() -> HardwareSampler:
    from workbench.machine.gpu import HardwareSampler

    return HardwareSampler()
