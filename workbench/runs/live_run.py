"""Follows the journal of a run for the screens: the state of the run with curves to draw, read off the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from workbench.runs import journal_sample
from workbench.runs.chart_curves import ChartCurves
from workbench.runs.events import Eval, Step
from workbench.runs.folder import RunFolder, summarise
from workbench.runs.journal import JournalReader
from workbench.runs.replay import Replay, fold
from workbench.runs.summary_cache import write_cached_summary

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.runs.events import AnyEvent
    from workbench.runs.summary import RunSummary

# How often the screen is updated while a long journal is read.
_SECONDS_BETWEEN_UPDATES = 0.5


class ChartReplay(Replay):
    """The state of a run, with curves to draw.

    Attributes:
        curves: losses, tokens and seconds by step.
        share_read: how much of the journal was read. Below 1 the journal was only sampled: the curves have single steps
            from all over it, and events in its middle may be missing.
    """

    def __init__(self, run: RunFolder) -> None:
        self.curves = ChartCurves()
        super().__init__(run.id, self.curves)
        self.run = run
        self.share_read = 1.0

    @property
    def is_partial(self) -> bool:
        """Whether the journal is long and not completely read yet."""
        return self.share_read < 1

    def add(self, event: AnyEvent) -> None:
        """Fold the next event."""
        super().add(event)
        if isinstance(event, Eval):
            self.curves.add_evaluation(event)

    def add_sample(self, sample: journal_sample.JournalSample, summary: RunSummary) -> None:
        """Fold a sample of a long journal, whose partial summary is ``summary``."""
        fold(sample.head, self)
        self.skip_middle()
        self.curves.skip_points(self.logging_steps)
        for event in sample.middle:
            if isinstance(event, Step):
                self.curves.add(event)
            elif isinstance(event, Eval):
                self.curves.add_evaluation(event)
        fold(sample.tail, self)
        self.summary = summary


class LiveRun:
    """Keeps the state of one run up to date with its journal.

    ``replay`` is replaced by a new object once a long journal has been read completely.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.replay = ChartReplay(run)
        self._reader = JournalReader(run.journal)
        self._reading = asyncio.Lock()

    async def catch_up(self, show: Callable[[], object] = lambda: None) -> None:
        """Read the new events in a thread, fold them block by block, then check whether the writer is still alive.

        Args:
            show: called while a long journal is read, when there is more to show: after sampling it, then regularly.
        """
        async with self._reading:
            if self._is_far_behind:
                await self._read_long(show)
            await self._read_on()
            if self.replay.summary.has_lost_its_writer:
                await self._read_on()  # the last events come just before the end of the process
                self.replay.summary.settle()

    async def _read_on(self) -> None:
        blocks = self._reader.blocks()
        while (events := await asyncio.to_thread(next, blocks, None)) is not None:
            fold(events, self.replay)
            await asyncio.sleep(0)

    @property
    def _is_far_behind(self) -> bool:
        return journal_sample.is_long(self.run.journal, self._reader.offset)

    async def _read_long(self, show: Callable[[], object]) -> None:
        """Show a sample at once, then read the whole journal into a second replay, which replaces the sampled one."""
        self.replay.share_read = 0.0
        sample, summary = await asyncio.to_thread(_sample, self.run)
        sampled = ChartReplay(self.run)
        sampled.share_read = 0.0
        sampled.add_sample(sample, summary)
        self.replay = sampled
        show()
        complete, reader = ChartReplay(self.run), JournalReader(self.run.journal)
        new_events = JournalReader(self.run.journal, sample.end)
        reading = asyncio.create_task(asyncio.to_thread(_read_up_to, complete, reader, sample.end))
        while not reading.done():
            await asyncio.wait([reading], timeout=_SECONDS_BETWEEN_UPDATES)
            # The run may continue while its past is read.
            fold(new_events.read(), sampled)
            # Below 1, as this replay stays a sample.
            sampled.share_read = min(0.99, reader.offset / max(1, sample.end))
            show()
        reading.result()
        # The few events that came meanwhile; without an await, none can be missed before the swap.
        fold(reader.read(), complete)
        self.replay, self._reader = complete, reader
        await asyncio.to_thread(write_cached_summary, self.run.journal, complete.summary, reader.offset)


def _sample(run: RunFolder) -> tuple[journal_sample.JournalSample, RunSummary]:
    sample = journal_sample.sample_journal(run.journal)
    return sample, summarise(run, quick=True, sample=sample)


def _read_up_to(replay: ChartReplay, reader: JournalReader, end: int) -> None:
    """Fold a journal from its start up to where it ended when it was sampled."""
    blocks = reader.blocks()
    while reader.offset < end and (events := next(blocks, None)) is not None:
        fold(events, replay)
