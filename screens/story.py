"""A run as its journal tells it, in the form that screens draw: curves, the newest figures, what went wrong."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from screens.widgets.series import Series
from workbench.runs.folder import RunFolder, RunSummary
from workbench.runs.journal import Event, JournalReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# A megabyte is some 2,000 events, which the event loop takes in within a few milliseconds.
_BLOCK = 1 << 20
_NOTICES_KEPT = 50
_SAMPLES_KEPT = 200
_STEPS_KEPT = 20
_PROGRESS = {"seq", "time", "event", "phase", "fraction", "detail", "max_steps"}


class Evaluation(NamedTuple):
    """A held-out loss after a step; ``is_best`` where it was better than all before it."""

    step: int
    loss: float
    is_best: bool


class Story:
    """What is known of one run. Everything in it comes from the journal and can be read from it again.

    A run that was resumed is told as if it had never been further than the step it goes on from.

    Attributes:
        started: the event ``run_started``; empty before it.
        resumed: the newest event ``run_resumed``; empty where there is none.
        phase: the newest event ``phase``.
        facts: what the phases told beside their progress: trainable parameters, counts of records, …
        checkpoint: the step of the newest checkpoint, 0 without one.
        step: the newest event ``step``; empty before the first one.
        recent: the last of these events.
        paused: the event that made the run stand still; None while it goes on.
        done: the newest event ``control`` or ``resumed``: the last thing that was asked of the run and done.
        peak_rate: the peak learning rate of its schedule; None before the run began.
        error: the event that ended the run badly.
        ended: the event ``run_ended``; empty before it.
        samples: events ``sample``, the replies to the fixed prompts, oldest first.
        notices: messages of the newest warnings and hints.
        tokens, clock: how many tokens and seconds of training each step was reached after.
        seq: number of the newest event, -1 before the first one.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.summary = RunSummary(run.id)
        self.train = Series()
        self.eval = Series()
        self.tokens = Series()
        self.clock = Series()
        self.started: Event = {}
        self.resumed: Event = {}
        self.phase: Event = {}
        self.facts: Event = {}
        self.checkpoint = 0
        self.step: Event = {}
        self.recent: deque[Event] = deque(maxlen=_STEPS_KEPT)
        self.paused: Event | None = None
        self.done: Event | None = None
        self.peak_rate: float | None = None
        self.error: Event | None = None
        self.ended: Event = {}
        self.samples: list[Event] = []
        self.notices: list[str] = []
        self.seq = -1
        self._evaluations: list[Evaluation] = []
        self._reader = JournalReader(run.journal)
        self._reading = asyncio.Lock()

    @property
    def is_over(self) -> bool:
        """The journal says how the run ended, or its writer is gone without a word."""
        return self.summary.ended is not None or self.summary.state == "interrupted"

    @property
    def can_go_on(self) -> bool:
        """Whether it broke off with something left of it."""
        return can_go_on(self.summary)

    @property
    def best(self) -> Evaluation | None:
        """The best evaluation so far, the base's own left out."""
        return next((one for one in reversed(self._evaluations) if one.is_best), None)

    @property
    def evaluations_since_best(self) -> int:
        """Evaluations in a row that were not better than the best one."""
        return len(list(takewhile(lambda one: one.step and not one.is_best, reversed(self._evaluations))))

    async def catch_up(self) -> None:
        """Read what is new, off the event loop, and take it in piece by piece; then see whether its writer lives."""
        async with self._reading:
            while events := await asyncio.to_thread(self._reader.read, _BLOCK):
                self._take(event for event in events if event.get("seq", 0) > self.seq)
                await asyncio.sleep(0)
            self.summary.settle()

    async def add(self, events: Sequence[Event]) -> None:
        """Take in events that somebody else read; where some before them are missing, the journal is read."""
        if self._reading.locked() or (events and events[0].get("seq", 0) > self.seq + 1):
            await self.catch_up()
        if events and events[-1].get("seq", 0) > self.seq:
            self._take(event for event in events if event.get("seq", 0) > self.seq)

    def _take(self, events: Iterator[Event]) -> None:
        for event in events:
            self.seq = event.get("seq", self.seq)
            self.summary.add(event)
            self._tell(event)

    def _tell(self, event: Event) -> None:
        match event["event"]:
            case "run_started":
                self.started = event
                self.peak_rate = ((event.get("recipe") or {}).get("training") or {}).get("learning_rate")
                self._begins()
            case "run_resumed":
                self.resumed = event
                self._begins()
                self._go_back_to(_step(event))
            case "phase":
                self.phase = event
                self.facts |= {name: value for name, value in event.items() if name not in _PROGRESS}
            case "step":
                self.step = event
                self.recent.append(event)
                self.train.add(event["step"], _number(event.get("loss")))
                self.tokens.add(event["step"], _number(event.get("tokens")))
                before = self.clock.last[1] if self.clock.last else 0.0
                self.clock.add(event["step"], before + _number(event.get("seconds")))
            case "eval":
                self._evaluated(Evaluation(_step(event), _number(event.get("loss")), bool(event.get("best"))))
            case "checkpoint":
                self.checkpoint = _step(event)
            case "control" | "resumed" | "paused" as kind:
                self._answered(kind, event)
            case "sample":
                self.samples = [*self.samples, event][-_SAMPLES_KEPT:]
            case "warning" | "hint":
                self.notices = [*self.notices, str(event.get("message", ""))][-_NOTICES_KEPT:]
            case "error":
                self.error = event
            case "run_ended":
                self.ended, self.paused = event, None

    def _begins(self) -> None:
        """Nothing holds any more of how the run stood still or ended before."""
        self.error, self.paused, self.done, self.ended, self.phase = None, None, None, {}, {}

    def _go_back_to(self, step: int) -> None:
        """What came after this step is trained again."""
        for series in (self.train, self.eval, self.tokens, self.clock):
            series.cut(step)
        self._evaluations = [one for one in self._evaluations if one.step <= step]
        self.samples = [sample for sample in self.samples if _step(sample) <= step]
        self.checkpoint = step
        self.recent.clear()
        if self.step and _step(self.step) > step:
            self.step = {}

    def _answered(self, kind: str, event: Event) -> None:
        """What somebody asked for was done, or the run stands still by itself."""
        if kind == "control":
            self.done = event
            if event.get("action") == "learning_rate":
                self.peak_rate = event.get("value", self.peak_rate)
        elif kind == "resumed":
            self.done, self.paused = event, None
        else:
            self.paused = event

    def _evaluated(self, evaluation: Evaluation) -> None:
        self.eval.add(evaluation.step, evaluation.loss)
        self._evaluations.append(evaluation)


def can_go_on(summary: RunSummary) -> bool:
    """Whether a run broke off with something left of it; one that was discarded could only begin anew."""
    return summary.state in ("interrupted", "stopped", "failed") and summary.reason != "discarded"


def events_in_blocks(journal: Path) -> Iterator[Event]:
    """The events of a journal, a block at a time: a long one is never held as a whole."""
    reader = JournalReader(journal)
    while events := reader.read(_BLOCK):
        yield from events


def _step(event: Event) -> int:
    step = event.get("step", 0)
    return step if isinstance(step, int) else 0


def _number(value: object) -> float:
    """The journal writes a loss that is not finite as text; for a chart it is no number."""
    return float(value) if isinstance(value, int | float) else float("nan")
