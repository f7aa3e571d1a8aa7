"""What a run that goes on needs to know of its own past, from its journal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.runs.journal import Event, each_event


@dataclass
class History:
    """A journal up to a checkpoint.

    Attributes:
        evaluations: held-out loss by step, those after the checkpoint left out.
        max_steps: the number of steps that was asked for in mid-run; None where the recipe's holds.
        chosen: what the run decided of what its recipe left open, by dotted keys.
        losses: the loss of each step after the checkpoint, as it was the last time it was trained.
        conditions: what the numbers depended on when the run last started or resumed
            (:mod:`workbench.engine.training.resume_check`).
    """

    evaluations: dict[int, float] = field(default_factory=dict)
    max_steps: int | None = None
    chosen: Mapping[str, Any] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)


def read_history(journal: Path, step: int) -> History:
    """The past of a run that goes on after ``step`` steps."""
    history = History()
    if not journal.is_file():
        return history
    for event in each_event(journal):
        match event["event"]:
            case "eval" if event.get("step", 0) <= step and isinstance(event.get("loss"), int | float):
                history.evaluations[event["step"]] = event["loss"]
            case "control" if event.get("action") == "max_steps" and event.get("value"):
                history.max_steps = int(event["value"])
            case "step" if event.get("step", 0) > step and isinstance(event.get("loss"), int | float):
                history.losses[event["step"]] = event["loss"]
            case "phase":
                history.chosen = chosen_by(event) or history.chosen
                if isinstance(found := event.get("conditions"), dict):
                    history.conditions = found
    return history


def chosen_by(event: Event) -> Mapping[str, Any]:
    """What an event tells of what the run decided; empty for most events."""
    chosen = event.get("chosen")
    return chosen if event["event"] == "phase" and isinstance(chosen, dict) else {}
