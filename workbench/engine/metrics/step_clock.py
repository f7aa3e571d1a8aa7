"""Where the time of a step goes, and how much of what is computed is of use.

The trainer says which part of a step begins; it lasts until the next one does. On a GPU that is told by events in its
own queue: to record one waits for nothing, and they are read once the GPU has passed them. So a part is as long as it
kept the GPU, and ``data`` is the time in which the GPU had nothing to do because there was no batch yet: what the host
gets ready while the GPU still computes costs nothing. Without a GPU the parts are those of the host's clock.

Of several processes each has a clock; the first one's is told. What it waits for the others is in its ``backward``.
"""

import time
import traceback
from collections import deque
from typing import Any, Literal

from workbench.engine.batches.stats import BatchStats
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.hardware import device_facts
from workbench.errors import WorkbenchError
from workbench.estimate.flops import TrainingFlops, training_flops
from workbench.estimate.gpu_peak import GpuPeak, gpu_peak
from workbench.models.build import build_skeleton
from workbench.models.trees import known_skeleton
from workbench.recipe.resolved import ResolvedRecipe
from workbench.runs.step_times import PARTS

Part = Literal["data", "forward", "backward", "optimizer", "other", "away"]
"""``forward`` holds the loss; ``optimizer`` the clipping, the step and the schedule; ``other`` the journal and planned
checkpoints; ``away`` what is no training and told nowhere: evaluations, samples, pauses."""


class HostTimer:
    """The host's clock."""

    def mark(self) -> float:
        return time.perf_counter()

    def between(self, start: float, end: float) -> float | None:
        """Seconds from one mark to another."""
        return end - start


class CudaTimer:
    """Events in the queue of the GPU that computes."""

    def __init__(self) -> None:
        self._spare: list[Any] = []

    def mark(self) -> Any:
        import torch

        event = self._spare.pop() if self._spare else torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start: Any, end: Any) -> float | None:
        """Seconds from one mark to another; None while the GPU has not come so far. ``start`` is used again then."""
        if not end.query():
            return None
        seconds = start.elapsed_time(end) / 1000
        self._spare.append(start)
        return float(seconds)


class StepClock:
    """Adds up, between two points of the curve, the parts of the steps and what was fed in them.

    Args:
        flops: what training costs on this model; None where that is not known.
        peak: what the device could do.
    """

    def __init__(self, flops: TrainingFlops | None, peak: GpuPeak, timing: HostTimer | CudaTimer) -> None:
        self.peak = peak
        self._flops = flops
        self._timing = timing
        self._marks: deque[tuple[Part, Any]] = deque()
        self._empty()

    def _empty(self) -> None:
        self._seconds = dict.fromkeys((*PARTS, "away"), 0.0)
        self._tokens = self._places = self._model_flops = self._hardware_flops = 0

    def begins(self) -> None:
        """The first step is about to begin; what was measured before counts no more."""
        self._marks.clear()
        self._empty()
        self.enters("other")

    def enters(self, part: Part) -> None:
        """What goes on from here is this part."""
        self._marks.append((part, self._timing.mark()))
        if part == "data":
            self._settle()

    def fed(self, fed: BatchStats) -> None:
        """A batch of the step that begins."""
        self._tokens += sum(fed.lengths)
        self._places += fed.places
        if self._flops is not None:
            self._model_flops += self._flops.model(fed.lengths, fed.trained)
            self._hardware_flops += self._flops.hardware(fed.lengths, fed.trained)

    def read(self, seconds: float) -> dict[str, Any]:
        """Fields for the journal, of the steps since the last reading, which took so many seconds.

        ``parts`` in seconds; ``padding``, the share of the computed places that hold no token; ``flops`` a second that
        the model needed; ``mfu`` and, with what checkpointing computes again, ``hfu``, as shares of the device's peak.
        """
        self.enters("other")
        self._settle()
        told: dict[str, Any] = {"parts": {part: round(self._seconds[part], 4) for part in PARTS}}
        if self._places:
            told["padding"] = round(1 - self._tokens / self._places, 4)
        if self._model_flops:
            told["flops"] = int(float(f"{self._model_flops / max(seconds, 1e-9):.4g}"))
            told["mfu"] = self._share(self._model_flops, seconds)
            if self._hardware_flops > self._model_flops:
                told["hfu"] = self._share(self._hardware_flops, seconds)
        self._empty()
        return told

    def _share(self, flops: int, seconds: float) -> float | None:
        return None if self.peak.flops is None else round(flops / max(seconds, 1e-9) / self.peak.flops, 4)

    def _settle(self) -> None:
        """Add up the parts that are over, without waiting for those that are not."""
        while len(self._marks) > 1:
            (part, start), (_, end) = self._marks[0], self._marks[1]
            seconds = self._timing.between(start, end)
            if seconds is None:
                return
            self._seconds[part] += seconds
            self._marks.popleft()


def clock_for(recipe: ResolvedRecipe, base: LoadedBase) -> StepClock:
    """The clock of a run on the device at hand."""
    device = device_facts()
    if device.kind == "cuda":
        peak, timing = gpu_peak(device.name, base.precision.compute), CudaTimer()
        return StepClock(_flops(recipe, base), peak, timing)
    return StepClock(_flops(recipe, base), GpuPeak(None, "the peak FLOP/s of a CPU is unknown"), HostTimer())


def _flops(recipe: ResolvedRecipe, base: LoadedBase) -> TrainingFlops | None:
    try:
        skeleton = known_skeleton(recipe.model) or build_skeleton(base.local.folder)
        return training_flops(skeleton, recipe.adapter, recipe.training.gradient_checkpointing)
    except WorkbenchError:
        return None
    except Exception:
        # A run is worth more than its figures; the log keeps what was wrong with them.
        traceback.print_exc()
        return None
