"""Reads from a run's journal what the run needs when it resumes: evaluations, chosen settings, earlier losses."""

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
        max_steps: the max steps that the user set during the run; None if the recipe's value applies.
        chosen: the values that the run chose for ``auto`` settings, by dotted key.
        losses: losses of the previous attempt at the steps after the checkpoint, which are about to be retrained; the
            resumed run compares its first loss with them.
        conditions: the settings, versions and devices that affect the losses, as of the last start or resume
            (:mod:`workbench.engine.training.session.resume_check`).
        padded_because: why the run did not take the fastest way to compute its loss; empty if it did.
    """

    evaluations: dict[int, float] = field(default_factory=dict)
    max_steps: int | None = None
    chosen: Mapping[str, object] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    conditions: Mapping[str, object] = field(default_factory=dict)
    padded_because: str = ""


def read_history(journal: Path, step: int) -> History:
    """Read the past of a run that resumes after ``step`` steps."""
    collector = _LossesAfter(step)
    replay = Replay.of(journal, collector)
    return History(
        evaluations={at: loss for at, loss in held_out_losses(replay).items() if at <= step},
        max_steps=replay.requested_steps,
        chosen=replay.chosen,
        losses=collector.losses,
        conditions=replay.facts.conditions or {},
        padded_because=replay.facts.padded_because or "",
    )


class _LossesAfter:
    """Collects the losses after a step, including those that a later resume rewound over."""

    def __init__(self, step: int) -> None:
        self._after = step
        self.losses: dict[int, float] = {}

    def add(self, step: Step) -> None:
        # A loss that is not finite is journaled as text.
        if step.step > self._after and isinstance(step.loss, int | float):
            self.losses[step.step] = float(step.loss)

    def cut(self, step: int) -> None:
        """A resume rewinds the run to ``step``; the losses after it are what this collects, so they stay."""
