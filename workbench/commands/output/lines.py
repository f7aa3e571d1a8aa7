"""A run as plain lines, for dumb terminals, ``tee`` and logs: one a point of the curve, no control sequences."""

import sys
from typing import Self

from workbench.commands.common import figure, printable
from workbench.runs.folder import RunSummary
from workbench.runs.journal import Event


class RunLines:
    """Writes a line an event that a person wants to know of, at once."""

    def __init__(self) -> None:
        self._phase = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, event: Event, summary: RunSummary) -> None:
        """Write what there is to say of one event."""
        if event["event"] == "phase":
            # A download tells how far it is twice a second; a line for each kind of work is enough.
            if event.get("phase") == self._phase:
                return
            self._phase = str(event.get("phase", ""))
        for words in told(event, summary):
            sys.stdout.write(one_line(words) + "\n")
        sys.stdout.flush()


def told(event: Event, summary: RunSummary) -> list[str]:
    """What an event says, in words; nothing for what only programs want to know."""
    step = event.get("step", 0)
    match event["event"]:
        case "run_started":
            return [f"{summary.id} begins: {summary.model}"]
        case "run_resumed":
            return [f"{summary.id} goes on from step {step}"]
        case "phase" if event.get("phase") != "training":
            return [f"{event.get('phase', '')} {event.get('detail', '')}".strip(), *reasons(event)]
        case "step":
            return [_point(event, summary)]
        case "eval":
            return [_evaluation(event)]
        case "control":
            return [f"step {step}: {action_words(event)}"]
        case "paused":
            return [f"step {event.get('step', summary.step)}: {event.get('reason', 'paused')}"]
        case "resumed":
            return [f"step {event.get('step', summary.step)}: goes on"]
        case "checkpoint":
            return [f"step {step}: checkpoint written"]
        case "sample":
            replies = [reply for reply in event.get("replies", []) if isinstance(reply, dict)]
            return [f"step {step}: {reply.get('prompt', '')} -> {reply.get('reply', '')}" for reply in replies]
        case "warning" | "hint" | "error" as kind:
            return [f"{kind}: {event.get('message', '')}"]
        case "run_ended":
            return [_end(event, summary)]
    return []


def reasons(event: Event) -> list[str]:
    """Why the run decided as it did what its recipe left open; nothing for most events."""
    told = event.get("reasons")
    return [str(reason) for reason in told] if isinstance(told, list) else []


def action_words(event: Event) -> str:
    """What was asked of a run and done: ``learning rate 0.0001``."""
    value = event.get("value")
    return f"{str(event.get('action', '')).replace('_', ' ')}{'' if value is None else f' {value:g}'}"


def one_line(text: str) -> str:
    """Text from outside on one line, without what could steer a terminal."""
    return " ".join(printable(text).split())


def remaining(seconds: float | None) -> str:
    """``4:12`` or ``1:04:12``."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _point(event: Event, summary: RunSummary) -> str:
    rate = event.get("learning_rate")
    parts = [
        f"step {summary.step}/{summary.max_steps}",
        f"loss {figure(event.get('loss'), 4)}",
        f"lr {rate:.2e}" if isinstance(rate, float) else "",
        f"{event.get('tokens_per_second') or 0:.0f} tok/s",
        f"MFU {mfu:.0%}" if isinstance(mfu := event.get("mfu"), float) else "",
        f"{remaining(event.get('eta_seconds'))} left",
    ]
    return ", ".join(part for part in parts if part)


def _evaluation(event: Event) -> str:
    best = ", the best so far" if event.get("best") else ""
    figures = f"loss {figure(event.get('loss'), 4)}, perplexity {figure(event.get('perplexity'))}"
    return f"step {event.get('step', 0)}: held out {figures}{best}"


def _end(event: Event, summary: RunSummary) -> str:
    kept = event.get("kept_step")
    adapter = f"; the adapter of step {kept} is kept" if event.get("adapter") and kept is not None else ""
    reason = str(event.get("reason", "finished")).replace("_", " ")
    return f"{summary.id} {summary.state} ({reason}) after step {summary.step}{adapter}"
