"""Decides the settings that a recipe leaves on ``auto``, once base, records and device are known."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.data.facts import DataFacts
from workbench.engine.metrics.peak_memory import device_of, skeleton_of
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.sharded import is_sharded
from workbench.engine.steering.ranks import Ranks
from workbench.errors import WorkbenchError
from workbench.machine.host import HostSampler, host_memory
from workbench.machine.memory_budget import MemoryBudget, gpu_budget, host_budget
from workbench.recipe.resolved import DROPOUT, ResolvedRecipe, has_auto, resolved
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from workbench.estimate.fastest import Choice


@dataclass(frozen=True)
class Decision:
    """The recipe as it is trained.

    Attributes:
        chosen: what was on ``auto``, by dotted keys; empty where nothing was.
        reasons: why, in sentences.
    """

    recipe: ResolvedRecipe
    chosen: Mapping[str, object]
    reasons: tuple[str, ...] = ()


def choose(
    home: Home, recipe: Recipe, base: LoadedBase, data: DataFacts, ranks: Ranks, before: Mapping[str, object]
) -> Decision:
    """Resolve the recipe for training; all processes of a run get the same result.

    Args:
        before: what the run decided before it was resumed, which stays: another micro-batch would round differently.
    """
    if before:
        return Decision(resolved(recipe, before), before, ("As chosen when the run started.",))
    dropped, notice = ranks.broadcast(_dropout(recipe, base) if ranks.is_first else None) or ({}, "")
    if not has_auto(recipe):
        return Decision(resolved(recipe, dropped), dropped, (notice,) if notice else ())
    recipe = edit(recipe, dropped)
    # The fullest GPU decides; on a CPU each process has measured its part of the host's memory.
    free = min(ranks.gather(_free_bytes(base, ranks.count)))
    budget = MemoryBudget(device_of(base), free, host_bytes=host_memory()[1] // ranks.count)
    decision = ranks.broadcast(_choose_here(home, recipe, base, data, budget) if ranks.is_first else None)
    assert decision is not None
    chosen, reasons = decision
    return Decision(resolved(recipe, chosen), {**dropped, **chosen}, (*((notice,) if notice else ()), *reasons))


def _dropout(recipe: Recipe, base: LoadedBase) -> tuple[dict[str, object], str]:
    """The dropout of an adapter that cannot have the default one, and why; nothing for all others."""
    from workbench.estimate.adapter.settled import dropout_notice, without_impossible_dropout

    skeleton = skeleton_of(recipe, base) if recipe.adapter.dropout_is_default else None
    if skeleton is None:
        return {}, ""
    settled = without_impossible_dropout(skeleton, recipe)
    notice = dropout_notice(recipe, settled)
    return ({DROPOUT: settled.adapter.lora_dropout} if notice else {}), notice


def _choose_here(
    home: Home, recipe: Recipe, base: LoadedBase, data: DataFacts, budget: MemoryBudget
) -> tuple[dict[str, object], tuple[str, ...]]:
    try:
        choice = _choice(home, recipe, base, data, budget)
    except WorkbenchError:  # PEFT will refuse the adapter too when it is attached, with the reason
        choice = _without_estimate(recipe, budget)
    except Exception:  # a missing estimate must not end the run; the reason goes into its log
        traceback.print_exc()
        choice = _without_estimate(recipe, budget)
    return dict(choice.chosen), choice.reasons


def _choice(home: Home, recipe: Recipe, base: LoadedBase, data: DataFacts, budget: MemoryBudget) -> "Choice":
    from workbench.estimate import TraceStore, price

    if is_sharded():
        return _without_estimate(recipe, budget, "the base is sharded across GPUs")
    skeleton = skeleton_of(recipe, base)
    if skeleton is None:
        return _without_estimate(recipe, budget)
    # Stored traces only: tracing a step now would take CPU time from the run.
    traced, lengths = TraceStore(home.cache / "traces"), data.lengths
    labels = len(data.labels) or None
    return price(skeleton, recipe, budget, longest=lengths.max, median=lengths.p50, labels=labels, traced=traced).choice


def _without_estimate(recipe: Recipe, budget: MemoryBudget, reason: str = "its step cannot be estimated") -> "Choice":
    from workbench.estimate import Setup
    from workbench.estimate.fastest import Chooser

    return Chooser(None, budget, unknown_reason=reason).choose(Setup.of(recipe))


def _free_bytes(base: LoadedBase, processes: int) -> int:
    """Memory that each process may use: the free memory, plus that of the base, which the estimate counts too."""
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        budget = gpu_budget(device_of(base), free, total, torch.cuda.memory_reserved(), "this GPU")
    else:
        # Each process has loaded the base.
        budget = host_budget(device_of(base), HostSampler().sample(), base.footprint * processes, processes)
    assert budget.free_bytes is not None
    return budget.free_bytes
