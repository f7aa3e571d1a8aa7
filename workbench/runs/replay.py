"""Folds the events of a run's journal into the present state of the run. All rules are in this module:

- a resume discards everything after its checkpoint: points of the curve, evaluations, samples;
- the best evaluation is the newest one marked as best that was not discarded;
- the ``run_ended`` event says which step's adapter was saved.

Summary, curves, history, report, script, exported metrics and screens read a :class:`Replay`.
"""

from collections import deque
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import Protocol

import msgspec

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
    memory_bytes,
)
from workbench.runs.journal import JournalReader, each_event
from workbench.runs.startup import Startup
from workbench.runs.summary import RunState, RunSummary, shown_settings

_MAX_NOTICES = 50
_MAX_SAMPLES = 200
_RECENT_STEPS = 20
# Fields of a phase that describe its progress; the others are facts about the run.
_PROGRESS = {"seq", "time", "more", "phase", "fraction", "detail", "eta_seconds", "max_steps"}
_STATES: dict[str, RunState] = {"finished": "finished", "early_stopping": "finished", "error": "failed"}


class Curve(Protocol):
    """Receives the points of the training curve from a replay, and stores what it needs of them."""

    def add(self, step: Step) -> None:
        """Add a point; steps increase."""

    def cut(self, step: int) -> None:
        """Remove the points after this step."""


class NoCurve:
    """Stores no points."""

    def add(self, step: Step) -> None:
        return None

    def cut(self, step: int) -> None:
        return None


class Replay:
    """The state of a run after the events so far.

    Attributes:
        summary: the summary that lists of runs show.
        started, resumed, ended, error: the newest event of each kind; None before it and once it no longer applies.
        startup: the phases since the newest start or resume, until the first step.
        phase: the newest phase. facts: the newest value of each fact that any phase stated.
        step: the newest point of the curve; recent: the last few points.
        checkpoint: the step of the newest checkpoint, 0 without one.
        evaluations: the held-out evaluations in order, without discarded ones; the base model's is at step 0.
        samples: the newest sampled replies.
        paused: the event that paused the run; None if it is not paused.
        last_request: the user's last request that was carried out.
        peak_rate: peak learning rate of the schedule. requested_steps: max steps that the user set during the run.
        notices: messages of the newest warnings and hints.
        deviations: what the recipe alone does not reproduce: resumes, changed settings, split or skipped steps.
        seq: number of the newest event, -1 before the first.

    Args:
        curve: receives the points.
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
        self.startup = Startup()
        self.facts = Phase()
        self.step: Step | None = None
        self.recent: deque[Step] = deque(maxlen=_RECENT_STEPS)
        self.checkpoint = 0
        self.evaluations: list[Eval] = []
        self.samples: list[Sample] = []
        self.paused: Paused | None = None
        self.last_request: Control | Resumed | None = None
        self.peak_rate: float | None = None
        self.requested_steps: int | None = None
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
        """Fold a whole journal."""
        replay = cls(journal.parent.name, curve)
        for event in each_event(journal):
            replay.add(event)
        return replay

    def add(self, event: AnyEvent) -> None:
        """Fold the next event."""
        if event.seq >= 0:
            self.seq = event.seq
        self._fold[type(event)](event)  # type: ignore[operator]
        self.summary.last_event = event.time or self.summary.last_event

    def skip_middle(self) -> None:
        """Prepare for a gap in the events: reset everything that the missing events may have changed."""
        self.resumed = self.step = self.ended = self.paused = self.last_request = self.error = self.peak_rate = None
        self.phase, self.checkpoint, self.evaluations = Phase(), 0, []
        self.recent.clear()
        summary = self.summary
        summary.is_partial = True
        summary.state, summary.writer = "running", None
        summary.ended, summary.reason, summary.cure, summary.paused_at = None, "", "", None
        summary.perplexities = [one for one in summary.perplexities if not one[0]]
        summary.preferences.clear()
        summary.accuracies.clear()

    # -- derived values -------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether the run has ended, or its process is gone."""
        return self.summary.ended is not None or self.summary.state == "interrupted"

    @property
    def logging_steps(self) -> int:
        """``training.logging_steps`` of the recipe: steps between two points of the curve."""
        steps = self._training_setting("logging_steps")
        return steps if isinstance(steps, int) and steps else 1

    @property
    def early_stopping_patience(self) -> int | None:
        """``training.early_stopping_patience`` of the recipe; None without early stopping."""
        patience = self._training_setting("early_stopping_patience")
        return patience if isinstance(patience, int) else None

    def _training_setting(self, name: str) -> object:
        section = self.started.recipe.get("training")
        return section.get(name) if isinstance(section, dict) else None

    @property
    def chosen(self) -> dict[str, object]:
        """The values that the run chose for ``auto`` settings, by dotted key."""
        return dict(self.facts.chosen or {})

    @property
    def kept_step(self) -> int | None:
        """The step whose weights were saved as the adapter; None if unknown."""
        return self.ended.kept_step if self.ended is not None else None

    @property
    def best(self) -> Eval | None:
        """The best evaluation so far, without the base model's."""
        return next((one for one in reversed(self.evaluations) if one.best), None)

    @property
    def evaluations_since_best(self) -> int:
        """How many evaluations since the best one have not improved on it."""
        return len(list(takewhile(lambda one: one.step and not one.best, reversed(self.evaluations))))

    # -- the rules ------------------------------------------------------------------------------------------------

    def _run_started(self, event: RunStarted) -> None:
        self.started = event
        rate = self._training_setting("learning_rate")
        self.peak_rate = float(rate) if isinstance(rate, int | float) else None
        self._set_running(event)
        summary = self.summary
        summary.model = event.model
        summary.settings = shown_settings(event.recipe)
        summary.started = summary.started or event.time

    def _run_resumed(self, event: RunResumed) -> None:
        self._was_idle(self.summary.paused_at or self.summary.last_event, event.time)
        self.summary.paused_at = None
        self.resumed = event
        self.deviations.append(event)
        self._set_running(event)
        self.summary.reason = self.summary.cure = ""
        self.summary.step, self.summary.phase = event.step, ""
        self._cut(event.step)

    def _set_running(self, event: RunStarted | RunResumed) -> None:
        """Reset how the run was paused or ended before."""
        self.error = self.paused = self.last_request = self.ended = None
        self.phase, self.startup = Phase(), Startup()
        self.summary.state, self.summary.ended = "running", None
        self.summary.writer, self.summary.host = (event.pid, event.process_started), event.host

    def _cut(self, step: int) -> None:
        """Discard everything after this step: it is trained again."""
        self.curve.cut(step)
        self.evaluations = [one for one in self.evaluations if one.step <= step]
        self.summary.perplexities = [one for one in self.summary.perplexities if one[0] <= step]
        self.summary.preferences = [one for one in self.summary.preferences if one[0] <= step]
        self.summary.accuracies = [one for one in self.summary.accuracies if one[0] <= step]
        self.samples = [sample for sample in self.samples if sample.step <= step]
        self.checkpoint = step
        self.recent.clear()
        if self.step is not None and self.step.step > step:
            self.step = None

    def _phase(self, event: Phase) -> None:
        self.phase = event
        if not self.recent:
            self.startup.add(event)
        named = ((name, getattr(event, name)) for name in event.__struct_fields__ if name not in _PROGRESS)
        known = {name: value for name, value in named if value is not None}
        self.facts = msgspec.structs.replace(self.facts, **known)
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
        summary.peak_vram = max(summary.peak_vram, memory_bytes(event.vram, "peak"))

    def _eval(self, event: Eval) -> None:
        self.evaluations.append(event)
        if event.macro_f1 is not None:
            self.summary.accuracies.append((event.step, event.accuracy))
        elif event.rewards is None:
            self.summary.perplexities.append((event.step, event.perplexity))
        elif event.rewards["chosen"] or event.rewards["rejected"]:  # a reference gives both 0 before the first step
            self.summary.preferences.append((event.step, event.rewards["accuracy"]))

    def _checkpoint(self, event: Checkpoint) -> None:
        self.checkpoint = event.step
        # With a longer logging interval no step may have been logged yet.
        self.summary.step = max(self.summary.step, event.step)

    def _sample(self, event: Sample) -> None:
        self.samples = [*self.samples, event][-_MAX_SAMPLES:]

    def _warning(self, event: RunWarning) -> None:
        self._notice(event.message)
        if event.kind in ("out_of_memory", "skipped_step"):
            self.deviations.append(event)

    def _hint(self, event: Hint) -> None:
        self._notice(event.message)

    def _notice(self, message: str) -> None:
        self.notices = [*self.notices, message][-_MAX_NOTICES:]

    def _control(self, event: Control) -> None:
        self.last_request = event
        match event.action:
            case "learning_rate":
                self.peak_rate = event.value if event.value is not None else self.peak_rate
                self.deviations.append(event)
            case "max_steps":
                self.requested_steps = int(event.value) if event.value else self.requested_steps
                self.deviations.append(event)

    def _paused(self, event: Paused) -> None:
        self.paused = event
        self.summary.paused_at = self.summary.paused_at or event.time

    def _resumed(self, event: Resumed) -> None:
        self._end_pause(event.time)
        self.last_request = event

    def _end_pause(self, time: float) -> None:
        self._was_idle(self.summary.paused_at, time)
        self.paused = self.summary.paused_at = None

    def _was_idle(self, since: float | None, until: float) -> None:
        """Count a pause, or the time between an interruption and the resume."""
        if since and until > since:
            self.summary.idle_seconds += until - since

    def _error(self, event: RunError) -> None:
        self.error = event
        self.summary.reason, self.summary.cure = event.message, event.cure

    def _run_ended(self, event: RunEnded) -> None:
        self._end_pause(event.time)
        self.ended = event
        summary = self.summary
        summary.ended = event.time
        summary.measured_peak = event.measured
        summary.peak_vram = max(summary.peak_vram, (event.measured or {}).get("allocated") or 0)
        summary.state = _STATES.get(event.reason, "stopped")
        summary.reason = summary.reason if event.reason == "error" else event.reason

    def _unknown(self, event: Unknown) -> None:
        """Ignore an event of a newer version."""


class Cuts:
    """Collects the resumes of a journal, to tell which steps and evaluations a later resume discarded."""

    def __init__(self) -> None:
        self._resumes: list[tuple[int, int]] = []

    def add(self, event: AnyEvent) -> None:
        """Record the event if it is a resume."""
        if isinstance(event, RunResumed):
            self._resumes.append((event.seq, event.step))

    def is_discarded(self, event: Step | Eval) -> bool:
        """Whether a later resume went back to an earlier step than this event's."""
        return any(at > event.seq and event.step > step for at, step in self._resumes)


def finite(value: object) -> float:
    """A number from the journal as a float for charts; NaN if it is missing or not finite."""
    return float(value) if isinstance(value, int | float) else float("nan")


def held_out_losses(replay: Replay) -> dict[int, float]:
    """The finite held-out losses by step; the last one counts if a step was evaluated twice."""
    return {one.step: float(one.loss) for one in replay.evaluations if isinstance(one.loss, int | float)}


def fold(events: Iterable[AnyEvent], replay: Replay) -> Replay:
    """Add several events to a replay, and return it."""
    for event in events:
        replay.add(event)
    return replay


def read_on(reader: JournalReader, replay: Replay) -> None:
    """Add the events that a journal has since it was read."""
    for events in reader.blocks():
        fold(events, replay)


def deviation_text(event: RunResumed | Control | RunWarning) -> str:
    """Describe one of :attr:`Replay.deviations` as part of a sentence."""
    match event:
        case Control():
            return f"{event.action.replace('_', ' ')} set to {event.value:g} by hand after step {event.step}"
        case RunResumed():
            return f"resumed from step {event.step} after an interruption"
        case RunWarning(kind="out_of_memory"):
            return f"out of memory: the micro-batch became {event.micro_batch}"
    return f"step {event.step} was skipped: its gradient was not finite"
