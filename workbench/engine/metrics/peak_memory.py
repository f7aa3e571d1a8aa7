"""Predicts and measures the peak memory of a run, for its journal. Sizes are in bytes."""

import os
import traceback
from typing import TYPE_CHECKING

from workbench.data.facts import DataFacts
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.hardware import device_facts
from workbench.errors import WorkbenchError
from workbench.machine.gpu import gpus_now
from workbench.recipe.resolved import ResolvedRecipe, limit_to_longest, with_max_length
from workbench.recipe.schema import Recipe
from workbench.runs.events import MeasuredPeak, PredictedPeak
from workbench.storage.paths import Home
from workbench.units import gib

if TYPE_CHECKING:
    from workbench.estimate import Device, Estimate
    from workbench.models.skeleton import Skeleton


def predicted_peak(
    home: Home, recipe: ResolvedRecipe, base: LoadedBase, data: DataFacts, fullest: int | None = None
) -> PredictedPeak | None:
    """Estimate the peak of this run on this device; None where there is no estimate.

    The result has the peak's own fields, and ``length``, the record length that was assumed.

    Args:
        fullest: tokens of the fullest padding-free micro-batch; its records are assumed to be equally long, since the
            memory for a token does not depend on its record. None where batches are padded: then all records are
            assumed to be as long as the longest one.
    """
    if fullest is None:
        sized = limit_to_longest(recipe, data.lengths.max)
    else:
        sized = with_max_length(recipe, -(-fullest // recipe.training.per_device_train_batch_size))
    estimate = _estimate(home, sized, base, None)
    if estimate is None:
        return None
    return PredictedPeak(
        allocated_bytes=estimate.peak.allocated_bytes,
        reserved_bytes=estimate.peak.reserved_bytes,
        terms=dict(estimate.peak.terms),
        method=estimate.peak.method,
        length=sized.data.max_length,
    )


def out_of_memory_error(home: Home, recipe: ResolvedRecipe, base: LoadedBase, data: DataFacts) -> WorkbenchError:
    """The error for a run where not even one record fits: names the largest part, and the cheapest change that fits."""
    device = device_facts()
    estimate = _estimate(home, limit_to_longest(recipe, data.lengths.max), base, device.total_bytes)
    if estimate is None:
        largest, cure = "", "Lower data.max_length or adapter.r, or quantise to nf4."
    else:
        name = max(estimate.peak.terms, key=lambda term: estimate.peak.terms[term])
        size = estimate.peak.terms[name]
        largest = f" Largest part: {name.replace('_', ' ')}, estimated {gib(size, 2)}."
        changes = [f"{suggestion.label} ({suggestion.cost})" for suggestion in estimate.suggestions[:3]]
        cure = (
            "What would fit: " + "; ".join(changes) + "."
            if changes
            else "Lower data.max_length, or choose a smaller base."
        )
    return WorkbenchError(
        f"Even micro-batch 1 does not fit in the memory of {device.name}.{largest}", cure, kind="out_of_memory"
    )


def device_of(base: LoadedBase) -> "Device":
    """The device as the estimator describes it."""
    from workbench.estimate import Device

    return Device(device_facts().kind, bfloat16=base.precision.compute == "bfloat16")


def skeleton_of(recipe: Recipe, base: LoadedBase) -> "Skeleton | None":
    """The module tree of the base; None if it cannot be built, since a missing estimate must not end the run."""
    from workbench.models.build import build_skeleton
    from workbench.models.trees import known_skeleton

    try:
        return known_skeleton(recipe.model) or build_skeleton(base.local.folder)
    except WorkbenchError:
        return None
    except Exception:
        traceback.print_exc()  # into the run's log
        return None


def _estimate(home: Home, recipe: ResolvedRecipe, base: LoadedBase, free_bytes: int | None) -> "Estimate | None":
    """Estimate with stored traces only: tracing a step now would take CPU time from the run."""
    from workbench.estimate import TraceStore, estimate

    skeleton = skeleton_of(recipe, base)
    if skeleton is None:
        return None
    traced = TraceStore(home.cache / "traces")
    try:
        return estimate(skeleton, recipe, free_bytes=free_bytes, device=device_of(base), traced=traced)
    except WorkbenchError:
        return None
    except Exception:
        traceback.print_exc()
        return None


class PeakMeter:
    """Measures the peak GPU memory of the training steps: create it before the first step, read it after the last.

    The journal callback resets PyTorch's own peaks when training begins.
    """

    def __init__(self) -> None:
        import torch

        self._resting = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0

    def read(self) -> MeasuredPeak | None:
        """The peaks in bytes; None without a GPU.

        ``allocated`` and ``reserved``: as PyTorch counts them. ``resting``: allocated before the first step. ``nvml``:
        this process according to the driver, None where the driver does not say.
        """
        import torch

        if not torch.cuda.is_available():
            return None
        return {
            "allocated": torch.cuda.max_memory_allocated(),
            "reserved": torch.cuda.max_memory_reserved(),
            "resting": self._resting,
            "nvml": _driver_bytes(),
        }


def _driver_bytes() -> int | None:
    """Memory of this process on all GPUs; the allocator returns nothing during training, so this is the peak."""
    sizes = [p.bytes for gpu in gpus_now() for p in gpu.processes if p.pid == os.getpid() and p.bytes]
    return sum(sizes) or None
