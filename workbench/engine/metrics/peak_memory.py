"""Predicts and measures the peak memory of a run, for its journal. Sizes are in bytes."""

import os
import traceback
from typing import TYPE_CHECKING

from workbench.data.facts import DataFacts
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.hardware import compute_capability, device_facts
from workbench.errors import WorkbenchError
from workbench.machine.device import Device
from workbench.machine.gpu import gpus_now
from workbench.machine.memory_budget import MemoryBudget
from workbench.recipe.resolved import ResolvedRecipe, with_max_length
from workbench.recipe.schema import Recipe
from workbench.runs.events import MeasuredPeak, PredictedPeak
from workbench.storage.paths import Home
from workbench.units import gib

if TYPE_CHECKING:
    from workbench.estimate import Price
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
    longest: int | None = data.lengths.max
    if fullest is not None:
        texts = recipe.training.per_device_train_batch_size * recipe.objective.spec.texts_per_record
        recipe, longest = with_max_length(recipe, -(-fullest // texts)), None
    priced = _priced(home, recipe, base, MemoryBudget(device_of(base)), longest, len(data.labels))
    if priced is None:
        return None
    return PredictedPeak(
        allocated_bytes=priced.peak.allocated_bytes,
        reserved_bytes=priced.peak.reserved_bytes,
        terms=dict(priced.peak.terms),
        method=priced.peak.method,
        length=priced.setup.length,
        host_bytes=priced.peak.host_bytes,
    )


def out_of_memory_error(home: Home, recipe: ResolvedRecipe, base: LoadedBase, data: DataFacts) -> WorkbenchError:
    """The error for a run where not even one record fits: names the largest part, and the cheapest change that fits."""
    device = device_facts()
    budget = MemoryBudget(device_of(base), device.total_bytes, device.total_bytes)
    priced = _priced(home, recipe, base, budget, data.lengths.max, len(data.labels))
    if priced is None:
        largest, cure = "", "Lower data.max_length or adapter.r, or quantize to nf4."
    else:
        name = max(priced.peak.terms, key=lambda term: priced.peak.terms[term])
        size = priced.peak.terms[name]
        largest = f" Largest part: {name.replace('_', ' ')}, estimated {gib(size, 2)}."
        changes = [f"{suggestion.label} ({suggestion.cost})" for suggestion in priced.suggestions[:3]]
        cure = (
            "What would fit: " + "; ".join(changes) + "."
            if changes
            else "Lower data.max_length, or choose a smaller base."
        )
    return WorkbenchError(
        f"Even micro-batch 1 does not fit in the memory of {device.name}.{largest}", cure, kind="out_of_memory"
    )


def device_of(base: LoadedBase) -> Device:
    """The device as the estimator describes it."""
    return Device(
        device_facts().kind,
        bfloat16=base.precision.compute == "bfloat16",
        compute_capability=compute_capability(),
    )


def left_out_text(recipe: Recipe, base: LoadedBase) -> str:
    """What gets no adapter although the targets name it, and why, in sentences; empty if nothing is left out."""
    from workbench.estimate.adapter.plan import plan_adapter

    skeleton = skeleton_of(recipe, base)
    if skeleton is None:
        return ""
    try:
        plan = plan_adapter(skeleton, recipe.trained_adapter)
        return " ".join(filter(None, (plan.left_out_text, plan.unmatched_text)))
    except WorkbenchError:  # PEFT has accepted what the plan refuses
        return ""


def refusal_of(recipe: Recipe, base: LoadedBase, error: WorkbenchError) -> WorkbenchError:
    """The refusal of an adapter as the estimate words it, with what helps; else ``error``, as PEFT said it."""
    from workbench.adapters.settings import AdapterSettings
    from workbench.estimate.adapter.suggested_fix import refusal_with_fix

    skeleton = skeleton_of(recipe, base)
    known = refusal_with_fix(skeleton, AdapterSettings.of(recipe.trained_adapter)) if skeleton is not None else None
    return known or error


def skeleton_of(recipe: Recipe, base: LoadedBase) -> "Skeleton | None":
    """The module tree of the base; None if it cannot be built, since a missing estimate must not end the run."""
    from workbench.models.trees import skeleton_in_catalog, tree_in

    try:
        return skeleton_in_catalog(recipe.model) or tree_in(base.local.folder, recipe.model)
    except WorkbenchError:
        return None
    except Exception:
        traceback.print_exc()  # into the run's log
        return None


def _priced(
    home: Home, recipe: ResolvedRecipe, base: LoadedBase, budget: MemoryBudget, longest: int | None, labels: int
) -> "Price | None":
    """Price with stored traces only: tracing a step now would take CPU time from the run."""
    from workbench.estimate import TraceStore, price

    skeleton = skeleton_of(recipe, base)
    if skeleton is None:
        return None
    try:
        traced = TraceStore(home.cache / "traces")
        return price(skeleton, recipe, budget, longest=longest, labels=labels or None, traced=traced, replays=True)
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
