"""A run as its journal tells it, in the form that screens draw: curves, the newest figures, what went wrong."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import takewhile
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from screens.charts.series import Series
from workbench.runs import journal_sample as glance
from workbench.runs.folder import RunFolder, RunSummary, keep_sums, summarise
from workbench.runs.journal import Event, JournalReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

# While a long journal is read, what is known of it so far is shown so often.
_SECONDS_BETWEEN_LOOKS = 0.5
_NOTICES_KEPT = 50
_SAMPLES_KEPT = 200
_STEPS_KEPT = 20
_PROGRESS = {"seq", "time", "event", "phase", "fraction", "detail", "max_steps"}


class Evaluation(NamedTuple):
    """A held-out loss after a step; ``is_best`` where it was better than all before it."""

    step: int
    loss: float
    is_best: bool


class Telling:
    """What the events of one run tell, taken in one after the other.

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
        share: how much of its journal was read. Below 1 it was only looked at: the curve is of single steps from all
            over it, and of what lies between its beginning and its end there may be more.
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
        self.share = 1.0
        self._evaluations: list[Evaluation] = []

    @property
    def is_rough(self) -> bool:
        """Its journal is long and still being read."""
        return self.share < 1

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

    def take(self, events: Iterable[Event]) -> None:
        """Take in what happened next."""
        for event in events:
            self.seq = event.get("seq", self.seq)
            self.summary.add(event)
            self._tell(event)

    def look(self, seen: glance.Glance, summary: RunSummary) -> None:
        """Take in what was seen of a long journal; ``summary`` is of it, too."""
        self.take(seen.head)
        self._leap()
        for event in seen.between:
            if event["event"] == "step":
                self._stepped(event)
            elif event["event"] == "eval":
                self.eval.add(_step(event), _number(event.get("loss")))
        self.take(seen.tail)
        self.summary = summary

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
                self._stepped(event)
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

    def _stepped(self, event: Event) -> None:
        step = event["step"]
        if self.train.last is not None and step <= self.train.last[0]:
            # It was resumed in a part of the journal that was not looked at.
            self._cut(step - 1)
        self.train.add(step, _number(event.get("loss")))
        self.tokens.add(step, _number(event.get("tokens")))
        before, seconds = self.clock.last or (0.0, 0.0)
        # Where points were left out, each is taken to have lasted as long as this one.
        apart = (step - before) / self._steps_a_point if self.is_rough else 1
        self.clock.add(step, seconds + apart * _number(event.get("seconds")))

    @property
    def _steps_a_point(self) -> int:
        return ((self.started.get("recipe") or {}).get("training") or {}).get("logging_steps") or 1

    def _cut(self, step: int) -> None:
        """The curves end here again."""
        for series in (self.train, self.eval, self.tokens, self.clock):
            series.cut(step)

    def _leap(self) -> None:
        """Events are left out here: what they may have changed is not known any more."""
        self.resumed, self.step, self.ended, self.phase = {}, {}, {}, {}
        self.paused, self.done, self.error, self.peak_rate = None, None, None, None
        self.checkpoint = 0
        self._evaluations = []
        self.recent.clear()

    def _begins(self) -> None:
        """Nothing holds any more of how the run stood still or ended before."""
        self.error, self.paused, self.done, self.ended, self.phase = None, None, None, {}, {}

    def _go_back_to(self, step: int) -> None:
        """What came after this step is trained again."""
        self._cut(step)
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


class Story(Telling):
    """What is known of one run. Everything in it comes from the journal and can be read from it again."""

    def __init__(self, run: RunFolder) -> None:
        super().__init__(run)
        self._reader = JournalReader(run.journal)
        self._reading = asyncio.Lock()

    async def catch_up(self, show: Callable[[], object] = lambda: None) -> None:
        """Read what is new, off the event loop, and take it in piece by piece; then see whether its writer lives.

        Args:
            show: called while a long journal is read, whenever there is more to be seen: at once after a glance at it,
                then as the reading gets on.
        """
        async with self._reading:
            if self._is_far_behind:
                await self._read_long(show)
            blocks = self._reader.blocks()
            while (events := await asyncio.to_thread(next, blocks, None)) is not None:
                self.take(self._new(events))
                await asyncio.sleep(0)
            self.summary.settle()

    async def add(self, events: Sequence[Event]) -> None:
        """Take in events that somebody else read; where some before them are missing, the journal is read."""
        has_hole = bool(events) and events[0].get("seq", 0) > self.seq + 1
        if not self.is_rough:
            if has_hole and self._is_far_behind:
                return  # nobody is to wait here for so much; whoever shows the story has it catch up
            if has_hole or self._reading.locked():
                await self.catch_up()
        self.take(self._new(events))

    def _new(self, events: Iterable[Event]) -> Iterator[Event]:
        return (event for event in events if event.get("seq", 0) > self.seq)

    @property
    def _is_far_behind(self) -> bool:
        return glance.is_long(self.run.journal, self._reader.offset)

    async def _read_long(self, show: Callable[[], object]) -> None:
        """A glance first; then all is read into a telling of its own, which takes the place of what was seen."""
        self.share = 0.0
        seen, summary = await asyncio.to_thread(_look_at, self.run)
        self._become(Telling(self.run))
        self.share = 0.0
        self.look(seen, summary)
        show()
        whole, reader, shown = Telling(self.run), JournalReader(self.run.journal), monotonic()
        blocks = reader.blocks()
        while await asyncio.to_thread(_read_on, whole, blocks):
            # Never all of it: the whole is not in its place yet.
            self.share = min(0.99, reader.offset / max(1, glance.unread(self.run.journal)))
            if monotonic() - shown >= _SECONDS_BETWEEN_LOOKS:
                shown = monotonic()
                show()
        # What came meanwhile is little, and nothing can be heard between this line and the next.
        whole.take(reader.read())
        self._become(whole)
        self._reader = reader
        await asyncio.to_thread(keep_sums, self.run, whole.summary, reader.offset)

    def _become(self, other: Telling) -> None:
        vars(self).update(vars(other))


def _look_at(run: RunFolder) -> tuple[glance.Glance, RunSummary]:
    return glance.glance(run.journal), summarise(run, soon=True)


def _read_on(telling: Telling, blocks: Iterator[list[Event]]) -> bool:
    """Take in the next block; False at the end."""
    events = next(blocks, None)
    telling.take(events or ())
    return events is not None


def can_go_on(summary: RunSummary) -> bool:
    """Whether a run broke off with something left of it; one that was discarded could only begin anew."""
    return summary.state in ("interrupted", "stopped", "failed") and summary.reason != "discarded"


def _step(event: Event) -> int:
    step = event.get("step", 0)
    return step if isinstance(step, int) else 0


def _number(value: object) -> float:
    """The journal writes a loss that is not finite as text; for a chart it is no number."""
    return float(value) if isinstance(value, int | float) else float("nan")
