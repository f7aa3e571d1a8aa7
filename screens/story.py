"""A run as its journal tells it, in the form that screens draw: curves, the newest figures, what went wrong."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from screens.widgets.series import Series
from workbench.runs.folder import RunFolder, RunSummary
from workbench.runs.journal import Event, JournalReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# A megabyte is some 2,000 events, which the event loop takes in within a few milliseconds.
_BLOCK = 1 << 20
_NOTICES_KEPT = 50
_PROGRESS = {"seq", "time", "event", "phase", "fraction", "detail", "max_steps"}


class Story:
    """What is known of one run. Everything in it comes from the journal and can be read from it again.

    Attributes:
        started: the event ``run_started``; empty before it.
        phase: the newest event ``phase``.
        facts: what the phases told beside their progress: trainable parameters, counts of records, …
        checkpoint: the step of the newest checkpoint, 0 without one.
        step: the newest event ``step``; empty before the first one.
        error: the event that ended the run badly.
        notices: messages of the newest warnings.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.summary = RunSummary(run.id)
        self.train = Series()
        self.eval = Series()
        self.started: Event = {}
        self.phase: Event = {}
        self.facts: Event = {}
        self.checkpoint = 0
        self.step: Event = {}
        self.error: Event | None = None
        self.notices: list[str] = []
        self._reader = JournalReader(run.journal)
        self._seq = -1
        self._reading = asyncio.Lock()

    @property
    def is_over(self) -> bool:
        """The journal says how the run ended, or its writer is gone without a word."""
        return self.summary.ended is not None or self.summary.state == "interrupted"

    async def catch_up(self) -> None:
        """Read what is new, off the event loop, and take it in piece by piece; then see whether its writer lives."""
        async with self._reading:
            while events := await asyncio.to_thread(self._reader.read, _BLOCK):
                self._take(event for event in events if event.get("seq", 0) > self._seq)
                await asyncio.sleep(0)
            self.summary.settle()

    async def add(self, events: Sequence[Event]) -> None:
        """Take in events that somebody else read; where some before them are missing, the journal is read."""
        if self._reading.locked() or (events and events[0].get("seq", 0) > self._seq + 1):
            await self.catch_up()
        if events and events[-1].get("seq", 0) > self._seq:
            self._take(event for event in events if event.get("seq", 0) > self._seq)

    def _take(self, events: Iterator[Event]) -> None:
        for event in events:
            self._seq = event.get("seq", self._seq)
            self.summary.add(event)
            match event["event"]:
                case "run_started":
                    self.started, self.error = event, None
                case "phase":
                    self.phase = event
                    self.facts |= {name: value for name, value in event.items() if name not in _PROGRESS}
                case "step":
                    self.step = event
                    self.train.add(event["step"], _number(event.get("loss")))
                case "eval":
                    self.eval.add(int(event.get("step", 0)), _number(event.get("loss")))
                case "checkpoint":
                    self.checkpoint = int(event.get("step", 0))
                case "warning":
                    self.notices = [*self.notices, str(event.get("message", ""))][-_NOTICES_KEPT:]
                case "error":
                    self.error = event


def _number(value: object) -> float:
    """The journal writes a loss that is not finite as text; for a chart it is no number."""
    return float(value) if isinstance(value, int | float) else float("nan")
