"""Prints a run as plain lines without control sequences, for dumb terminals, ``tee`` and logs."""

import sys
from typing import Self

from workbench.commands.common import figure, printable
from workbench.runs.events import (
    AnyEvent,
    Checkpoint,
    Control,
    Eval,
    Hint,
    Number,
    Paused,
    Phase,
    Resumed,
    Rewards,
    RunEnded,
    RunError,
    RunResumed,
    RunStarted,
    RunWarning,
    Sample,
    Step,
    name_of,
)
from workbench.runs.summary import RunSummary
from workbench.units import clock


class RunLines:
    """Prints one line per event that is of interest to the user."""

    def __init__(self) -> None:
        self._phase = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, event: AnyEvent, summary: RunSummary) -> None:
        """Print the lines of an event."""
        if isinstance(event, Phase):
            # Downloads report progress twice a second; one line per phase is enough.
            if event.phase == self._phase:
                return
            self._phase = event.phase
        for words in event_lines(event, summary):
            sys.stdout.write(one_line(words) + "\n")
        sys.stdout.flush()


def event_lines(event: AnyEvent, summary: RunSummary) -> list[str]:
    """An event as lines of text; none for events that only programs need."""
    match event:
        case RunStarted():
            return [f"{summary.id} started: {summary.model}"]
        case RunResumed(step=step):
            return [f"{summary.id} resumed from step {step}"]
        case Phase() if event.phase != "training":
            return [f"{event.phase} {event.detail}".strip(), *reasons(event)]
        case Step():
            return [_point(event, summary)]
        case Eval():
            return [_evaluation(event)]
        case Control(step=step):
            return [f"step {step}: {action_words(event)}"]
        case Paused():
            return [f"step {_step(event, summary)}: {event.reason or 'paused'}"]
        case Resumed():
            return [f"step {_step(event, summary)}: resumed"]
        case Checkpoint(step=step):
            return [f"step {step}: checkpoint saved"]
        case Sample(step=step):
            return [f"step {step}: {one.get('prompt', '')} -> {one.get('reply', '')}" for one in event.replies]
        case RunWarning() | Hint() | RunError():
            return [f"{name_of(event)}: {event.message}"]
        case RunEnded():
            return [_end(event, summary)]
    return []


def _step(event: Paused | Resumed, summary: RunSummary) -> int:
    return summary.step if event.step is None else event.step


def reasons(event: Phase) -> list[str]:
    """Why the run chose its ``auto`` settings; empty for most phases."""
    return event.reasons or []


def action_words(event: Control) -> str:
    """A request that was carried out, as ``learning rate 0.0001``."""
    return f"{event.action.replace('_', ' ')}{'' if event.value is None else f' {event.value:g}'}"


def one_line(text: str) -> str:
    """Text from outside on one line, without terminal control characters."""
    return " ".join(printable(text).split())


def remaining(seconds: float | None) -> str:
    """Format remaining time as ``4:12`` or ``1:04:12``; ``?`` if unknown."""
    return "?" if seconds is None else clock(seconds).removeprefix("0")


def preference(rewards: Rewards | None) -> str:
    """``reward margin 1.23, accuracy 90%``; empty for runs that are not preference training."""
    if rewards is None:
        return ""
    margin = "" if rewards["margin"] is None else f"reward margin {figure(rewards['margin'], 3)}, "
    return f"{margin}accuracy {rewards['accuracy']:.0%}"


def held_out_figures(event: Eval) -> str:
    """What was measured beside the loss: ``perplexity 12.3``, ``reward margin …``, ``accuracy 90%, macro-F1 0.88``."""
    if event.macro_f1 is not None:
        return f"{_accuracy(event.accuracy)}, macro-F1 {figure(event.macro_f1, 3)}"
    return preference(event.rewards) or f"perplexity {figure(event.perplexity)}"


def _accuracy(accuracy: Number) -> str:
    return f"accuracy {accuracy:.0%}" if isinstance(accuracy, float) else ""


def _point(event: Step, summary: RunSummary) -> str:
    parts = [
        f"step {summary.step}/{summary.max_steps}",
        f"loss {figure(event.loss, 4)}",
        preference(event.rewards) or _accuracy(event.accuracy),
        f"lr {event.learning_rate:.2e}" if event.learning_rate is not None else "",
        f"{event.tokens_per_second or 0:.0f} tok/s",
        f"MFU {event.mfu:.0%}" if event.mfu is not None else "",
        f"{remaining(event.eta_seconds)} left",
    ]
    return ", ".join(part for part in parts if part)


def _evaluation(event: Eval) -> str:
    best = ", best so far" if event.best else ""
    figures = f"loss {figure(event.loss, 4)}, {held_out_figures(event)}"
    return f"step {event.step}: held-out {figures}{best}"


def _end(event: RunEnded, summary: RunSummary) -> str:
    adapter = f"; keeps the adapter of step {event.kept_step}" if event.adapter and event.kept_step is not None else ""
    return f"{summary.id} {summary.state} ({event.reason.replace('_', ' ')}) after step {summary.step}{adapter}"
