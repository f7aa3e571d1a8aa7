"""What a run that is resumed has to know of its own past, from its journal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.runs.events import Step
from workbench.runs.replay import Replay, held_out_losses


@dataclass
class History:
    """A journal up to a checkpoint.

    Attributes:
        evaluations: held-out loss by step, those after the checkpoint left out.
        max_steps: the max steps that the user asked for in mid-run; None where the recipe's hold.
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
    """The past of a run that is resumed after ``step`` steps."""
    after = _LossesAfter(step)
    replay = Replay.of(journal, after)
    return History(
        evaluations={at: loss for at, loss in held_out_losses(replay).items() if at <= step},
        max_steps=replay.asked_steps,
        chosen=replay.chosen,
        losses=after.losses,
        conditions=replay.facts.get("conditions") or {},
    )


class _LossesAfter:
    """Losses of the steps that are about to be trained again: no cut forgets them."""

    def __init__(self, step: int) -> None:
        self._after = step
        self.losses: dict[int, float] = {}

    def add(self, step: Step) -> None:
        if step.step > self._after and isinstance(step.loss, int | float):
            self.losses[step.step] = float(step.loss)

    def cut(self, step: int) -> None:
        return None
