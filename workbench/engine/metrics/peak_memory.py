"""What a run was predicted to take at its peak, and what it did take, for its journal. Sizes are bytes."""

import os
import traceback
from typing import TYPE_CHECKING, Any

from workbench.data.facts import DataFacts
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.hardware import device_facts
from workbench.errors import WorkbenchError
from workbench.machine.gpu import gpus_now
from workbench.recipe.resolved import ResolvedRecipe, limit_to_longest, with_max_length
from workbench.recipe.schema import Recipe
from workbench.storage.paths import Home
from workbench.units import gib

if TYPE_CHECKING:
    from workbench.estimate import Device, Estimate
    from workbench.models.skeleton import Skeleton


def predicted_peak(
    home: Home, recipe: ResolvedRecipe, base: LoadedBase, data: DataFacts, fullest: int | None = None
) -> dict[str, Any] | None:
    """The estimator's peak for this run on the device at hand; None where it has none.

    The length that is priced is named ``length`` beside the peak's own fields.

    Args:
        fullest: tokens of the fullest micro-batch without padding, whose records are priced as if they were equally
            long: what is kept of a token does not depend on its record. None where batches are padded, and so as long
            as their longest record; then that of the longest record is priced.
    """
    if fullest is None:
        fed = limit_to_longest(recipe, data.lengths.max)
    else:
        fed = with_max_length(recipe, -(-fullest // recipe.training.per_device_train_batch_size))
    priced = _priced(home, fed, base, None)
    return None if priced is None else {**priced.peak.as_json(), "length": fed.data.max_length}


def no_room(home: Home, recipe: ResolvedRecipe, base: LoadedBase, data: DataFacts) -> WorkbenchError:
    """What to say when not even one record at a time fits: what takes the most, and the cheapest change that fits."""
    device = device_facts()
    priced = _priced(home, limit_to_longest(recipe, data.lengths.max), base, device.total_bytes)
    if priced is None:
        largest, cure = "", "Lower data.max_length or adapter.r, or quantise to nf4."
    else:
        name = max(priced.peak.terms, key=lambda term: priced.peak.terms[term])
        size = priced.peak.terms[name]
        largest = f" Largest part: {name.replace('_', ' ')}, estimated {gib(size, 2)}."
        told = [f"{suggestion.label} ({suggestion.cost})" for suggestion in priced.suggestions[:3]]
        cure = (
            "What would fit: " + "; ".join(told) + "." if told else "Lower data.max_length, or choose a smaller base."
        )
    return WorkbenchError(
        f"Even micro-batch 1 does not fit in the memory of {device.name}.{largest}", cure, kind="out_of_memory"
    )


def device_of(base: LoadedBase) -> "Device":
    """The device as the estimator sees it."""
    from workbench.estimate import Device

    return Device(device_facts().kind, bfloat16=base.precision.compute == "bfloat16")


def skeleton_of(recipe: Recipe, base: LoadedBase) -> "Skeleton | None":
    """The module tree of the base; None where it cannot be had: a run is worth more than its prediction."""
    from workbench.models.build import build_skeleton
    from workbench.models.trees import known_skeleton

    try:
        return known_skeleton(recipe.model) or build_skeleton(base.local.folder)
    except WorkbenchError:
        return None
    except Exception:
        traceback.print_exc()  # the log keeps what was wrong with it
        return None


def _priced(home: Home, recipe: ResolvedRecipe, base: LoadedBase, free_bytes: int | None) -> "Estimate | None":
    """Only steps that were followed before are looked up: following one would take the processor from the run."""
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
    told = [p.bytes for gpu in gpus_now() for p in gpu.processes if p.pid == os.getpid() and p.bytes]
    return sum(told) or None
