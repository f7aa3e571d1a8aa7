"""The summary of a run, as lists of runs show it: state, steps, loss, memory. :mod:`workbench.runs.replay` fills it."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import psutil

from workbench.runs.events import MeasuredPeak, Number, PredictedPeak

RunState = Literal["new", "running", "finished", "stopped", "failed", "interrupted"]

SHOWN_SETTINGS = ("adapter.r", "training.learning_rate", "adapter.target_modules", "data.source")
"""The settings that a list of runs can show."""


def shown_settings(recipe: Mapping[str, object]) -> dict[str, object]:
    """The values of :data:`SHOWN_SETTINGS` in a recipe as plain data, by their keys; absent ones are left out."""
    found = {}
    for key in SHOWN_SETTINGS:
        section, _, name = key.partition(".")
        part = recipe.get(section)
        if isinstance(part, Mapping) and part.get(name) is not None:
            found[key] = part[name]
    return found


@dataclass
class RunSummary:
    """What the journal says about a run so far.

    Attributes:
        perplexities: (step, held-out perplexity) of the evaluations not discarded by a resume; the base's at step 0.
        preferences: (step, share of the held-out pairs whose chosen response has the higher reward) of the same
            evaluations, in preference training.
        accuracies: (step, accuracy on the held-out records) of the same evaluations, in classification.
        is_unpriced: the steps were compiled or used fused kernels, which the prediction does not cover.
        measured_peak: None without a GPU.
        reason: why the run ended; cure: what to do about it.
        writer: process id and start time of the process that writes the journal.
        host: name of the machine that it runs on as a job of Slurm; empty for any other run.
        idle_seconds: how long the run was paused or interrupted.
        paused_at: Unix time of the pause that the run is in; None if it is not paused. last_event: of the newest event.
        is_partial: the middle of a long journal has not been read. The values are true but may be incomplete: an
            evaluation or a higher peak may be missing; and the state of a run without an end is only known if
            ``writer`` is.
        settings: values of the recipe by their dotted keys: those of :data:`SHOWN_SETTINGS`.
    """

    id: str
    state: RunState = "new"
    model: str = ""
    started: float | None = None
    ended: float | None = None
    step: int = 0
    max_steps: int = 0
    phase: str = ""
    loss: Number = None
    perplexities: list[tuple[int, Number]] = field(default_factory=list)
    preferences: list[tuple[int, float]] = field(default_factory=list)
    accuracies: list[tuple[int, Number]] = field(default_factory=list)
    tokens: int = 0
    peak_vram: int = 0
    eta_seconds: float | None = None
    tokens_per_second: float | None = None
    reason: str = ""
    cure: str = ""
    predicted_peak: PredictedPeak | None = None
    is_unpriced: bool = False
    measured_peak: MeasuredPeak | None = None
    writer: tuple[int, float] | None = None
    host: str = ""
    idle_seconds: float = 0.0
    paused_at: float | None = None
    last_event: float | None = None
    is_partial: bool = False
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def best_loss(self) -> float | None:
        """The lowest held-out loss of an evaluation after the first step; None without one."""
        found = [value for step, value in self.perplexities if step and isinstance(value, int | float) and value > 0]
        return math.log(min(found)) if found else None

    @property
    def perplexity(self) -> dict[str, Number]:
        """The held-out perplexities known: ``base`` before the first step, ``tuned`` of the last evaluation."""
        by_model: dict[str, Number] = {}
        for step, perplexity in self.perplexities:
            # Before the first step the adapter has no effect yet.
            by_model["tuned" if step else "base"] = perplexity
        return by_model

    @property
    def preference(self) -> float | None:
        """The preference accuracy of the last evaluation; None in runs that are not preference training."""
        return self.preferences[-1][1] if self.preferences else None

    @property
    def accuracy(self) -> Number:
        """The accuracy of the last evaluation; None in runs that are not classification."""
        return self.accuracies[-1][1] if self.accuracies else None

    @property
    def is_state_unknown(self) -> bool:
        """Whether it is unknown if the run is still live: no end and no writer was read of its journal."""
        return self.is_partial and self.state == "running" and self.writer is None

    @property
    def can_be_resumed(self) -> bool:
        """Whether the run ended early, after it trained a step, and was not discarded.

        An interrupted one may have trained a step that was not logged yet.
        """
        has_begun = self.state == "interrupted" or (self.state in ("stopped", "failed") and self.step > 0)
        return has_begun and self.reason != "discarded"

    @property
    def seconds(self) -> float | None:
        """How long the run took, without pauses and interruptions; None before its end."""
        return self.ended - self.started - self.idle_seconds if self.ended and self.started else None

    @property
    def predicted_allocated(self) -> int | None:
        """Predicted peak of PyTorch's allocated memory, in bytes."""
        return self.predicted_peak.get("allocated_bytes") if self.predicted_peak else None

    @property
    def peak_error(self) -> float | None:
        """(predicted − measured) / measured of the allocated peak; None if they cannot be compared."""
        predicted = self.predicted_allocated
        measured = self.measured_peak.get("allocated") if self.measured_peak else None
        return predicted / measured - 1 if predicted and measured and not self.is_unpriced else None

    @property
    def has_lost_its_writer(self) -> bool:
        """Whether the process is gone, and what was read so far of its journal has no end."""
        # Of a job on another machine only Slurm knows.
        is_here = self.host in ("", os.uname().nodename)
        return self.state == "running" and not self.is_state_unknown and is_here and not _is_alive(self.writer)

    def settle(self, read_on: Callable[[], object] = lambda: None) -> None:
        """Mark the run as interrupted if it has not ended but its process is gone.

        Args:
            read_on: reads the events that the process wrote since the journal was read: its last ones come just before
                its end.
        """
        if self.has_lost_its_writer:
            read_on()
            if self.has_lost_its_writer:
                self.state = "interrupted"
                self.reason = "its training process ended"


def _is_alive(writer: tuple[int, float] | None) -> bool:
    """Whether the process is alive; its start time distinguishes it from a later process with the same id."""
    if not writer or not writer[0]:
        return False
    try:
        process = psutil.Process(writer[0])
        is_writer = abs(process.create_time() - writer[1]) < 2.0
        # A zombie has ended; its parent, perhaps this terminal, has not read its exit code yet. A process that is
        # ending loses its memory, and with it its command line, before its connections: then no client reaches it.
        return is_writer and process.status() != psutil.STATUS_ZOMBIE and bool(process.cmdline())
    except psutil.Error:
        return False
