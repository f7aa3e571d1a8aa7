"""A run while it is watched: its replay with curves to draw, kept up with its journal off the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from workbench.runs import journal_sample
from workbench.runs.events import Eval, Step
from workbench.runs.folder import RunFolder, keep_sums, summarise
from workbench.runs.journal import JournalReader
from workbench.runs.replay import Replay, finite, fold
from workbench.runs.series import Series

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.runs.events import AnyEvent
    from workbench.runs.summary import RunSummary

# While a long journal is read, what is known of it so far is shown this often.
_SECONDS_BETWEEN_LOOKS = 0.5


class DrawnCurves:
    """The curves of a run in little memory, as charts draw them.

    Attributes:
        train: loss by step. tokens, seconds: how many of each were fed, and spent, when a step was reached.
        held_out: held-out loss by step.
        steps_a_point: where points were left out, each of them is taken to have lasted as long as the next one.
    """

    def __init__(self) -> None:
        self.train, self.held_out, self.tokens, self.seconds = Series(), Series(), Series(), Series()
        self.steps_a_point: int | None = None

    def add(self, step: Step) -> None:
        """Take a point."""
        at = step.step
        if self.train.last is not None and at <= self.train.last[0]:
            # The run was resumed in a part of the journal that was not read.
            self.cut(at - 1)
        self.train.add(at, finite(step.loss))
        self.tokens.add(at, step.tokens)
        before, seconds = self.seconds.last or (0.0, 0.0)
        apart = (at - before) / self.steps_a_point if self.steps_a_point else 1
        self.seconds.add(at, seconds + apart * step.seconds)

    def evaluated(self, event: Eval) -> None:
        """Take an evaluation."""
        self.held_out.add(event.step, finite(event.loss))

    def cut(self, step: int) -> None:
        """Forget the points after this step."""
        for series in (self.train, self.held_out, self.tokens, self.seconds):
            series.cut(step)


class DrawnReplay(Replay):
    """A replay with curves to draw.

    Attributes:
        curves: see there.
        share: how much of the journal was read. Below 1 it was only sampled: the curve is of single steps from all
            over it, and what lies between its beginning and its end may hold more.
    """

    def __init__(self, run: RunFolder) -> None:
        self.curves = DrawnCurves()
        super().__init__(run.id, self.curves)
        self.run = run
        self.share = 1.0

    @property
    def is_rough(self) -> bool:
        """Whether its journal is long and still being read."""
        return self.share < 1

    def add(self, event: AnyEvent) -> None:
        """Fold the next event."""
        super().add(event)
        if isinstance(event, Eval):
            self.curves.evaluated(event)

    def look(self, seen: journal_sample.Glance, summary: RunSummary) -> None:
        """Fold a sample of a long journal; ``summary`` is of the same."""
        fold(seen.head, self)
        self.leap()
        self.curves.steps_a_point = self.training.get("logging_steps") or 1
        for event in seen.between:
            if isinstance(event, Step):
                self.curves.add(event)
            elif isinstance(event, Eval):
                self.curves.evaluated(event)
        fold(seen.tail, self)
        self.summary = summary


class LiveRun:
    """All that is known of one run. Everything in it comes from the journal and can be read from it again.

    ``replay`` is replaced as a whole when a long journal was read to its end.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.replay = DrawnReplay(run)
        self._reader = JournalReader(run.journal)
        self._reading = asyncio.Lock()

    async def catch_up(self, show: Callable[[], object] = lambda: None) -> None:
        """Read what is new, off the event loop, and fold it piece by piece; then see whether its writer lives.

        Args:
            show: called while a long journal is read, whenever there is more to be seen: at once after a sample of
                it, then as the reading proceeds.
        """
        async with self._reading:
            if self._is_far_behind:
                await self._read_long(show)
            blocks = self._reader.blocks()
            while (events := await asyncio.to_thread(next, blocks, None)) is not None:
                fold(events, self.replay)
                await asyncio.sleep(0)
            self.replay.summary.settle()

    @property
    def _is_far_behind(self) -> bool:
        return journal_sample.is_long(self.run.journal, self._reader.offset)

    async def _read_long(self, show: Callable[[], object]) -> None:
        """A sample first; then all is read into a replay of its own, which takes the place of the sampled one."""
        self.replay.share = 0.0
        seen, summary = await asyncio.to_thread(_look_at, self.run)
        sampled = DrawnReplay(self.run)
        sampled.share = 0.0
        sampled.look(seen, summary)
        self.replay = sampled
        show()
        whole, reader = DrawnReplay(self.run), JournalReader(self.run.journal)
        news = JournalReader(self.run.journal, seen.end)
        reading = asyncio.create_task(asyncio.to_thread(_read_up_to, whole, reader, seen.end))
        while not reading.done():
            await asyncio.wait([reading], timeout=_SECONDS_BETWEEN_LOOKS)
            # The run continues while its past is read.
            fold(news.read(), sampled)
            # Never all of it: the whole is not in its place yet.
            sampled.share = min(0.99, reader.offset / max(1, seen.end))
            show()
        reading.result()
        # What came meanwhile is little, and nothing can be heard between this line and the next.
        fold(reader.read(), whole)
        self.replay, self._reader = whole, reader
        await asyncio.to_thread(keep_sums, self.run, whole.summary, reader.offset)


def _look_at(run: RunFolder) -> tuple[journal_sample.Glance, RunSummary]:
    return journal_sample.glance(run.journal), summarise(run, soon=True)


def _read_up_to(replay: DrawnReplay, reader: JournalReader, end: int) -> None:
    """Fold a journal from its start, a block at a time, up to where it ended when it was sampled."""
    blocks = reader.blocks()
    while reader.offset < end and (events := next(blocks, None)) is not None:
        fold(events, replay)
