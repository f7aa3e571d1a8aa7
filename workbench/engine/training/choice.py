"""Decides the settings that a recipe leaves on ``auto``, once base, records and device are known."""

import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING

from workbench.data.facts import DataFacts
from workbench.engine.metrics.peak_memory import device_of, skeleton_of
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.sharded import is_sharded
from workbench.engine.steering.ranks import Ranks
from workbench.recipe.resolved import has_auto, limit_to_longest, resolved
from workbench.recipe.schema import Recipe
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from workbench.estimate.fastest import Choice, Chooser


def choose(
    home: Home, recipe: Recipe, base: LoadedBase, data: DataFacts, ranks: Ranks, before: Mapping[str, object]
) -> "Choice":
    """Resolve the recipe for training; all processes of a run get the same result.

    Args:
        before: what the run decided before it was resumed, which stays: another micro-batch would round differently.
    """
    from workbench.estimate.fastest import Choice

    if before and has_auto(recipe):
        return Choice(resolved(recipe, before), before, ("As chosen when the run started.",))
    if not has_auto(recipe):
        return Choice(resolved(recipe), {})
    # The fullest GPU decides; on a CPU all processes share the host's memory.
    free = min(ranks.gather(_free_bytes(base))) // (ranks.count if device_of(base).kind == "cpu" else 1)
    decision = ranks.broadcast(_choose_here(home, recipe, base, data, free) if ranks.is_first else None)
    assert decision is not None
    chosen, reasons = decision
    return Choice(resolved(recipe, chosen), chosen, reasons)


def _choose_here(
    home: Home, recipe: Recipe, base: LoadedBase, data: DataFacts, free: int
) -> tuple[dict[str, object], tuple[str, ...]]:
    from workbench.errors import WorkbenchError

    try:
        choice = _chooser(home, recipe, base, data, free).choose(limit_to_longest(recipe, data.lengths.max))
    except WorkbenchError:  # PEFT will refuse the adapter too when it is attached, with the reason
        choice = _without_estimate(free).choose(recipe)
    except Exception:  # a missing estimate must not end the run; the reason goes into its log
        traceback.print_exc()
        choice = _without_estimate(free).choose(recipe)
    return dict(choice.chosen), choice.reasons


def _chooser(home: Home, recipe: Recipe, base: LoadedBase, data: DataFacts, free: int) -> "Chooser":
    from workbench.estimate import Pricing, TraceStore

    if is_sharded():
        return _without_estimate(free, "the base is sharded across GPUs")
    skeleton = skeleton_of(recipe, base)
    if skeleton is None:
        return _without_estimate(free)
    # Stored traces only: tracing a step now would take CPU time from the run.
    pricing = Pricing(skeleton, device_of(base), TraceStore(home.cache / "traces"))
    return pricing.chooser(free, data.lengths.p50)


def _without_estimate(free: int, reason: str = "its step cannot be estimated") -> "Chooser":
    from workbench.estimate.fastest import Chooser

    return Chooser(None, free, lacking=reason)


def _free_bytes(base: LoadedBase) -> int:
    """Memory that the whole run may use: the free memory, plus that of the base, which the estimate counts too."""
    import torch

    if not torch.cuda.is_available():
        from workbench.machine.gpu import HostSampler

        host = HostSampler().sample()
        return min(host.available_bytes + base.footprint, host.total_bytes)
    from workbench.estimate.peak import CUDA_CONTEXT_BYTES

    free, total = torch.cuda.mem_get_info()
    return int(min(free + torch.cuda.memory_reserved() + CUDA_CONTEXT_BYTES, total))
