"""Reads from a run's journal what the run needs to know of its past when it is resumed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from workbench.runs.events import Step
from workbench.runs.replay import Replay, held_out_losses


@dataclass
class History:
    """The past of a run that resumes from a checkpoint.

    Attributes:
        evaluations: held-out loss by step, up to the checkpoint.
        max_steps: the max steps that the user set during the run; None if the recipe's apply.
        chosen: the values that the run chose for ``auto`` settings, by dotted key.
        losses: the loss of each step after the checkpoint, as last trained; they are about to be trained again.
        conditions: what the numbers depended on when the run last started or resumed
            (:mod:`workbench.engine.training.resume_check`).
    """

    evaluations: dict[int, float] = field(default_factory=dict)
    max_steps: int | None = None
    chosen: Mapping[str, object] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    conditions: Mapping[str, object] = field(default_factory=dict)


def read_history(journal: Path, step: int) -> History:
    """Read the past of a run that resumes after ``step`` steps."""
    after = _LossesAfter(step)
    replay = Replay.of(journal, after)
    return History(
        evaluations={at: loss for at, loss in held_out_losses(replay).items() if at <= step},
        max_steps=replay.requested_steps,
        chosen=replay.chosen,
        losses=after.losses,
        conditions=replay.facts.conditions or {},
    )


class _LossesAfter:
    """Collects the losses after a step; ignores cuts, so that the losses from before a resume stay."""

    def __init__(self, step: int) -> None:
        self._after = step
        self.losses: dict[int, float] = {}

    def add(self, step: Step) -> None:
        if step.step > self._after and isinstance(step.loss, int | float):
            self.losses[step.step] = float(step.loss)

    def cut(self, step: int) -> None:
        return None
