"""Measures where the time of a training step goes, and how much of the computation is useful.

The trainer says which part of a step begins; the part lasts until the next one begins. On a GPU the marks are CUDA
events: recording one waits for nothing, and it is read once the GPU has passed it. So a part is as long as it kept the
GPU busy, and ``data`` is the time in which the GPU was idle because there was no batch yet: batches that the host
prepares while the GPU computes cost nothing. Without a GPU the marks are taken from the host's clock.

With several processes each has a clock, and the first one's is recorded. Its ``backward`` includes the time it waits
for the others.
"""

import time
import traceback
from collections import deque
from typing import TYPE_CHECKING, Generic, Literal, NotRequired, Protocol, TypedDict, TypeVar

from workbench.engine.batches.stats import BatchStats
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.hardware import device_facts
from workbench.errors import WorkbenchError
from workbench.estimate.flops import TrainingFlops, training_flops
from workbench.estimate.gpu_peak import GpuPeak, gpu_peak
from workbench.estimate.setup import trained_settings
from workbench.models.trees import skeleton_in_catalog, tree_in
from workbench.recipe.resolved import ResolvedRecipe
from workbench.runs.step_times import PARTS

if TYPE_CHECKING:
    import torch

Part = Literal["data", "forward", "backward", "optimizer", "other", "away"]
"""``forward`` includes the loss; ``optimizer`` clipping, the step and the schedule; ``other`` the journal and planned
checkpoints; ``away`` is no training and not recorded: evaluations, samples, pauses."""

Mark = TypeVar("Mark")


class Timer(Protocol[Mark]):
    """Takes marks, and measures the time between two of them."""

    def mark(self) -> Mark:
        """Mark the current moment."""
        ...

    def between(self, start: Mark, end: Mark) -> float | None:
        """Seconds between two marks; None if ``end`` has not been reached yet. ``start`` is not used again."""
        ...


class HostTimer:
    """Takes marks from the host's clock."""

    def mark(self) -> float:
        return time.perf_counter()

    def between(self, start: float, end: float) -> float | None:
        return end - start


class CudaTimer:
    """Takes marks as CUDA events, and reuses them."""

    def __init__(self) -> None:
        self._spare: list[torch.cuda.Event] = []

    def mark(self) -> "torch.cuda.Event":
        import torch

        event = self._spare.pop() if self._spare else torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start: "torch.cuda.Event", end: "torch.cuda.Event") -> float | None:
        if not end.query():
            return None
        seconds = start.elapsed_time(end) / 1000
        self._spare.append(start)
        return float(seconds)


class StepTimes(TypedDict):
    """What a clock measured between two points of the loss curve; fields of the journal's ``step`` event.

    ``parts``: seconds. ``padding``: share of the computed positions that hold no token. ``flops``: FLOP/s that the
    model needed. ``mfu``, and ``hfu`` with recomputation for checkpointing: shares of the device's peak.
    """

    parts: dict[str, float]
    padding: NotRequired[float]
    flops: NotRequired[int]
    mfu: NotRequired[float | None]
    hfu: NotRequired[float | None]


class StepClock(Generic[Mark]):
    """Sums up the parts of the steps, and the sizes of their batches, between two points of the loss curve.

    Args:
        flops: cost of training this model; None if unknown.
        peak: peak FLOP/s of the device.
    """

    def __init__(self, flops: TrainingFlops | None, peak: GpuPeak, timer: Timer[Mark]) -> None:
        self.peak = peak
        self._flops = flops
        self._timer = timer
        self._marks: deque[tuple[Part, Mark]] = deque()
        self._reset()

    def _reset(self) -> None:
        self._seconds = dict.fromkeys((*PARTS, "away"), 0.0)
        self._tokens = self._positions = self._model_flops = self._hardware_flops = 0

    def start(self) -> None:
        """Start measuring, just before the first step."""
        self._marks.clear()
        self._reset()
        self.enter("other")

    def enter(self, part: Part) -> None:
        """Mark the beginning of a part, which ends the previous one."""
        self._marks.append((part, self._timer.mark()))
        if part == "data":
            self._add_finished()

    def add_batch(self, batch: BatchStats) -> None:
        """Count a batch of the step that begins."""
        self._tokens += sum(batch.lengths)
        self._positions += batch.positions
        if self._flops is not None:
            self._model_flops += self._flops.model(batch.lengths, batch.trained)
            self._hardware_flops += self._flops.hardware(batch.lengths, batch.trained)

    def read(self, seconds: float) -> StepTimes:
        """Return the measurements since the last reading, which was ``seconds`` ago, and start new ones."""
        self.enter("other")
        self._add_finished()
        times: StepTimes = {"parts": {part: round(self._seconds[part], 4) for part in PARTS}}
        if self._positions:
            times["padding"] = round(1 - self._tokens / self._positions, 4)
        if self._model_flops:
            times["flops"] = int(float(f"{self._model_flops / max(seconds, 1e-9):.4g}"))
            times["mfu"] = self._utilization(self._model_flops, seconds)
            if self._hardware_flops > self._model_flops:
                times["hfu"] = self._utilization(self._hardware_flops, seconds)
        self._reset()
        return times

    def _utilization(self, flops: int, seconds: float) -> float | None:
        return None if self.peak.flops is None else round(flops / max(seconds, 1e-9) / self.peak.flops, 4)

    def _add_finished(self) -> None:
        """Add the parts that have ended, without waiting for those that have not."""
        while len(self._marks) > 1:
            (part, start), (_, end) = self._marks[0], self._marks[1]
            seconds = self._timer.between(start, end)
            if seconds is None:
                return
            self._seconds[part] += seconds
            self._marks.popleft()


AnyClock = StepClock[float] | StepClock["torch.cuda.Event"]


def clock_for(recipe: ResolvedRecipe, base: LoadedBase) -> AnyClock:
    """The clock for a run on the current device."""
    device = device_facts()
    if device.kind == "cuda":
        return StepClock(_flops(recipe, base), gpu_peak(device.name, base.precision.compute), CudaTimer())
    return StepClock(_flops(recipe, base), GpuPeak(None, "the peak FLOP/s of a CPU is unknown"), HostTimer())


def _flops(recipe: ResolvedRecipe, base: LoadedBase) -> TrainingFlops | None:
    try:
        skeleton = skeleton_in_catalog(recipe.model) or tree_in(base.local.folder, recipe.model)
        settings = trained_settings(recipe)
        flops = training_flops(skeleton, settings, bool(recipe.training.gradient_checkpointing))
        return flops.with_passes(recipe.objective.extra_passes)
    except WorkbenchError:
        return None
    except Exception:
        # Missing metrics must not end the run; the reason goes into the run's log.
        traceback.print_exc()
        return None
