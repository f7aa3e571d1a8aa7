"""What a run was predicted to take at its peak, and what it did take, for its journal. Sizes are bytes."""

import os
import traceback
from typing import Any

from workbench.data.facts import DataFacts
from workbench.engine.base import LoadedBase
from workbench.engine.hardware import device_facts
from workbench.errors import WorkbenchError
from workbench.gpu import GpuSampler
from workbench.paths import Home
from workbench.recipe import Recipe


def predicted_peak(home: Home, recipe: Recipe, base: LoadedBase, data: DataFacts) -> dict[str, Any] | None:
    """The estimator's peak for this run on the device at hand; None where it has none.

    Batches are as long as their longest record, so the length that is priced is that of the longest one, named
    ``length`` beside the peak's own fields. Only steps that were followed before are looked up: following one would
    take the processor from the run.
    """
    from workbench.estimate import Device, TraceStore, estimate
    from workbench.models.build import build_skeleton
    from workbench.models.trees import known_skeleton
    from workbench.recipe_text import edit

    length = recipe.data.max_length
    if not recipe.data.packing:
        length = min(length, data.lengths.max)
    device = Device(device_facts().kind, bfloat16=base.precision.compute == "bfloat16")
    try:
        skeleton = known_skeleton(recipe.model) or build_skeleton(base.local.folder)
        fed = edit(recipe, {"data.max_length": length})
        priced = estimate(skeleton, fed, device=device, traced=TraceStore(home.cache / "traces"))
    except WorkbenchError:
        return None
    except Exception:
        # A run is worth more than its prediction; the log keeps what was wrong with it.
        traceback.print_exc()
        return None
    return {**priced.peak.as_json(), "length": length}


class PeakMeter:
    """Reads what the training step takes on a GPU: made just before the first step, read just after the last.

    The trainer's callback sets PyTorch's own peaks back when training begins.
    """

    def __init__(self) -> None:
        import torch

        self._resting = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0

    def read(self) -> dict[str, int | None] | None:
        """``allocated`` and ``reserved`` at their peaks as PyTorch counts; ``resting``, what was allocated before the
        first step; ``nvml``, what the driver says of this process (None where it does not). None without a GPU.
        """
        import torch

        if not torch.cuda.is_available():
            return None
        return {
            "allocated": torch.cuda.max_memory_allocated(),
            "reserved": torch.cuda.max_memory_reserved(),
            "resting": self._resting,
            "nvml": _told_by_driver(),
        }


def _told_by_driver() -> int | None:
    """Memory of this process on all GPUs; the allocator gives nothing back in training, so it is the peak."""
    sampler = GpuSampler()
    try:
        told = [p.bytes for gpu in sampler.sample() for p in gpu.processes if p.pid == os.getpid() and p.bytes]
    finally:
        sampler.close()
    return sum(told) or None
