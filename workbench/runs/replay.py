"""Folds the events of a run into its present state. The rules are here and nowhere else:

- a resume cuts away what came after its checkpoint: points of the curve, evaluations, samples;
- the best evaluation is the newest one that was marked as such and was not cut away;
- a stop keeps what its last event says it keeps.

Summary, curves, history, report, script, table and screens are views over a :class:`Replay`.
"""

from collections import deque
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

from workbench.runs.events import (
    AnyEvent,
    Checkpoint,
    Control,
    Eval,
    Hint,
    Paused,
    Phase,
    Resumed,
    RunEnded,
    RunError,
    RunResumed,
    RunStarted,
    RunWarning,
    Sample,
    Step,
    Unknown,
)
from workbench.runs.journal import each_event
from workbench.runs.summary import RunState, RunSummary

_NOTICES_KEPT = 50
_SAMPLES_KEPT = 200
_STEPS_KEPT = 20
# What a phase says of its progress; the rest are facts that hold for the run.
_PROGRESS = {"seq", "time", "more", "phase", "fraction", "detail", "max_steps"}
_STATES: dict[str, RunState] = {"finished": "finished", "early_stopping": "finished", "error": "failed"}


class Curve(Protocol):
    """Where a replay puts the points of the curve; what is not wanted is not kept."""

    def add(self, step: Step) -> None:
        """Take a point; steps rise."""

    def cut(self, step: int) -> None:
        """Forget the points after this step."""


class NoCurve:
    """Keeps no points."""

    def add(self, step: Step) -> None:
        return None

    def cut(self, step: int) -> None:
        return None


class Replay:
    """The state of a run after the events so far.

    Attributes:
        summary: the figures that histories list.
        started, resumed, ended, error: the newest event of each kind; None before it, and once it no longer holds.
        phase: the newest phase. facts: what all phases said beside their progress, by field name.
        step: the newest point of the curve; recent: the last few.
        checkpoint: the step of the newest checkpoint, 0 without one.
        evaluations: those that hold, in order, the base model's own at step 0.
        samples: replies to the fixed prompts, the newest ones.
        paused: why the run waits; None while it does not.
        done: the newest request of the user's that was carried out.
        peak_rate: peak learning rate of the schedule; asked_steps: max steps that the user asked for in mid-run.
        notices: messages of the newest warnings and hints.
        deviations: events that the recipe alone would not repeat: resumes, changed settings, split or skipped steps.
        seq: number of the newest event, -1 before the first.

    Args:
        curve: takes the points.
        summary: a summary of earlier events, to continue from.
    """

    def __init__(self, run_id: str, curve: Curve | None = None, summary: RunSummary | None = None) -> None:
        self.summary = summary or RunSummary(run_id)
        self.curve: Curve = curve or NoCurve()
        self.started = RunStarted()
        self.resumed: RunResumed | None = None
        self.ended: RunEnded | None = None
        self.error: RunError | None = None
        self.phase = Phase()
        self.facts: dict[str, Any] = {}
        self.step: Step | None = None
        self.recent: deque[Step] = deque(maxlen=_STEPS_KEPT)
        self.checkpoint = 0
        self.evaluations: list[Eval] = []
        self.samples: list[Sample] = []
        self.paused: Paused | None = None
        self.done: Control | Resumed | None = None
        self.peak_rate: float | None = None
        self.asked_steps: int | None = None
        self.notices: list[str] = []
        self.deviations: list[RunResumed | Control | RunWarning] = []
        self.seq = -1
        self._fold = {
            RunStarted: self._run_started,
            RunResumed: self._run_resumed,
            Phase: self._phase,
            Step: self._step,
            Eval: self._eval,
            Checkpoint: self._checkpoint,
            Sample: self._sample,
            RunWarning: self._warning,
            Hint: self._hint,
            Control: self._control,
            Paused: self._paused,
            Resumed: self._resumed,
            RunError: self._error,
            RunEnded: self._run_ended,
            Unknown: self._unknown,
        }

    @classmethod
    def of(cls, journal: Path, curve: Curve | None = None) -> "Replay":
        """Fold a journal to its end, a block at a time."""
        replay = cls(journal.parent.name, curve)
        for event in each_event(journal):
            replay.add(event)
        return replay

    def add(self, event: AnyEvent) -> None:
        """Fold the next event."""
        if event.seq >= 0:
            self.seq = event.seq
        self._fold[type(event)](event)  # type: ignore[operator]

    def leap(self) -> None:
        """Events are left out here: what they may have changed is unknown."""
        self.resumed = self.step = self.ended = self.paused = self.done = self.error = self.peak_rate = None
        self.phase, self.checkpoint, self.evaluations = Phase(), 0, []
        self.recent.clear()
        summary = self.summary
        summary.is_rough = True
        summary.state, summary.writer = "running", None
        summary.ended, summary.reason, summary.cure = None, "", ""
        summary.perplexities = [one for one in summary.perplexities if not one[0]]

    # -- what is read off it --------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """The journal has the run's end, or its writer is gone without one."""
        return self.summary.ended is not None or self.summary.state == "interrupted"

    @property
    def training(self) -> dict[str, Any]:
        """The ``training`` section of the recipe that the run was started with; empty before that."""
        return dict(self.started.recipe.get("training") or {})

    @property
    def chosen(self) -> dict[str, Any]:
        """What the run decided of what its recipe left open, by dotted keys."""
        return dict(self.facts.get("chosen") or {})

    @property
    def kept_step(self) -> int | None:
        """The step whose weights the adapter holds, where the run's end says so."""
        return self.ended.kept_step if self.ended is not None else None

    @property
    def best(self) -> Eval | None:
        """The best evaluation so far, the base's own left out."""
        return next((one for one in reversed(self.evaluations) if one.best), None)

    @property
    def evaluations_since_best(self) -> int:
        """Evaluations in a row that were not better than the best one."""
        return len(list(takewhile(lambda one: one.step and not one.best, reversed(self.evaluations))))

    # -- the rules ------------------------------------------------------------------------------------------------

    def _run_started(self, event: RunStarted) -> None:
        self.started = event
        self.peak_rate = self.training.get("learning_rate")
        self._begins(event)
        summary = self.summary
        summary.model = event.model
        summary.started = summary.started or event.time

    def _run_resumed(self, event: RunResumed) -> None:
        self.resumed = event
        self.deviations.append(event)
        self._begins(event)
        self.summary.reason = self.summary.cure = ""
        self.summary.step, self.summary.phase = event.step, ""
        self._cut(event.step)

    def _begins(self, event: RunStarted | RunResumed) -> None:
        """Nothing holds any more of how the run waited or ended before."""
        self.error = self.paused = self.done = self.ended = None
        self.phase = Phase()
        self.summary.state, self.summary.ended = "running", None
        self.summary.writer = (event.pid, event.process_started)

    def _cut(self, step: int) -> None:
        """What came after this step is trained again."""
        self.curve.cut(step)
        self.evaluations = [one for one in self.evaluations if one.step <= step]
        self.summary.perplexities = [one for one in self.summary.perplexities if one[0] <= step]
        self.samples = [sample for sample in self.samples if sample.step <= step]
        self.checkpoint = step
        self.recent.clear()
        if self.step is not None and self.step.step > step:
            self.step = None

    def _phase(self, event: Phase) -> None:
        self.phase = event
        named = ((name, getattr(event, name)) for name in event.__struct_fields__ if name not in _PROGRESS)
        self.facts |= {name: value for name, value in named if value is not None} | event.more
        summary = self.summary
        summary.phase = event.phase
        summary.max_steps = event.max_steps if event.max_steps is not None else summary.max_steps
        summary.predicted_peak = event.predicted or summary.predicted_peak
        summary.is_unpriced |= bool(event.compiled or event.kernels)

    def _step(self, event: Step) -> None:
        self.step = event
        self.recent.append(event)
        self.curve.add(event)
        summary = self.summary
        summary.step, summary.loss = event.step, event.loss
        summary.phase = "training"  # the end of an evaluation in between is not journalled
        summary.max_steps = event.max_steps or summary.max_steps
        summary.tokens = event.tokens or summary.tokens
        summary.eta_seconds, summary.tokens_per_second = event.eta_seconds, event.tokens_per_second
        if event.vram:
            summary.peak_vram = max(summary.peak_vram, event.vram.get("peak") or 0)

    def _eval(self, event: Eval) -> None:
        self.evaluations.append(event)
        self.summary.perplexities.append((event.step, event.perplexity))

    def _checkpoint(self, event: Checkpoint) -> None:
        self.checkpoint = event.step

    def _sample(self, event: Sample) -> None:
        self.samples = [*self.samples, event][-_SAMPLES_KEPT:]

    def _warning(self, event: RunWarning) -> None:
        self._notice(event.message)
        if event.kind in ("out_of_memory", "skipped_step"):
            self.deviations.append(event)

    def _hint(self, event: Hint) -> None:
        self._notice(event.message)

    def _notice(self, message: str) -> None:
        self.notices = [*self.notices, message][-_NOTICES_KEPT:]

    def _control(self, event: Control) -> None:
        self.done = event
        match event.action:
            case "learning_rate":
                self.peak_rate = event.value if event.value is not None else self.peak_rate
                self.deviations.append(event)
            case "max_steps":
                self.asked_steps = int(event.value) if event.value else self.asked_steps
                self.deviations.append(event)

    def _paused(self, event: Paused) -> None:
        self.paused = event

    def _resumed(self, event: Resumed) -> None:
        self.done, self.paused = event, None

    def _error(self, event: RunError) -> None:
        self.error = event
        self.summary.reason, self.summary.cure = event.message, event.cure

    def _run_ended(self, event: RunEnded) -> None:
        self.ended, self.paused = event, None
        summary = self.summary
        summary.ended = event.time
        summary.measured_peak = event.measured
        summary.peak_vram = max(summary.peak_vram, (event.measured or {}).get("allocated") or 0)
        summary.state = _STATES.get(event.reason, "stopped")
        summary.reason = summary.reason if event.reason == "error" else event.reason

    def _unknown(self, event: Unknown) -> None:
        """An event of a newer version changes nothing that this one knows of."""


class Cuts:
    """Which steps and evaluations of a whole journal were cut away by a later resume."""

    def __init__(self) -> None:
        self._resumes: list[tuple[int, int]] = []

    def add(self, event: AnyEvent) -> None:
        """Note where a resume went back to."""
        if isinstance(event, RunResumed):
            self._resumes.append((event.seq, event.step))

    def leave_out(self, event: Step | Eval) -> bool:
        """Whether a later resume went back to before this step."""
        return any(at > event.seq and event.step > step for at, step in self._resumes)


def finite(value: object) -> float:
    """A number of the journal for a chart: NaN where it has none, or has a word for one that is not finite."""
    return float(value) if isinstance(value, int | float) else float("nan")


def held_out_losses(replay: Replay) -> dict[int, float]:
    """The finite held-out losses, by step; an evaluation that was made twice counts as it was the last time."""
    return {one.step: float(one.loss) for one in replay.evaluations if isinstance(one.loss, int | float)}


def fold(events: Iterable[AnyEvent], replay: Replay) -> Replay:
    """Add all of some events."""
    for event in events:
        replay.add(event)
    return replay


def deviation_text(event: RunResumed | Control | RunWarning) -> str:
    """One of :attr:`Replay.deviations` as a sentence's part."""
    match event:
        case Control():
            return f"{event.action.replace('_', ' ')} set to {event.value:g} by hand after step {event.step}"
        case RunResumed():
            return f"resumed from step {event.step} after an interruption"
        case RunWarning(kind="out_of_memory"):
            return f"out of memory: the micro-batch became {event.micro_batch}"
    return f"step {event.step} was skipped: its gradient was not finite"
