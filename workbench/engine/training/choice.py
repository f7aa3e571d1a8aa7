"""What a run decides of what its recipe left to the machine: once, when base, records and device are known."""

import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
    home: Home, recipe: Recipe, base: LoadedBase, data: DataFacts, ranks: Ranks, before: Mapping[str, Any]
) -> "Choice":
    """The recipe as it is trained; all processes of a run get the same one.

    Args:
        before: what the run decided before it was resumed. It holds: another micro-batch adds other numbers up.
    """
    from workbench.estimate.fastest import Choice

    if before and has_auto(recipe):
        return Choice(resolved(recipe, before), before, ("As chosen when the run started.",))
    if not has_auto(recipe):
        return Choice(resolved(recipe), {})
    # The fullest GPU decides; on a processor all share the host's memory.
    rooms = ranks.gather(_free_bytes(base))
    free = min(rooms) // (ranks.count if device_of(base).kind == "cpu" else 1)
    told = ranks.broadcast(_chosen(home, recipe, base, data, free) if ranks.is_first else None)
    assert told is not None
    chosen, reasons = told
    return Choice(resolved(recipe, chosen), chosen, reasons)


def _chosen(
    home: Home, recipe: Recipe, base: LoadedBase, data: DataFacts, free: int
) -> tuple[dict[str, Any], tuple[str, ...]]:
    from workbench.errors import WorkbenchError

    try:
        choice = _chooser(home, recipe, base, data, free).choose(limit_to_longest(recipe, data.lengths.max))
    except WorkbenchError:  # PEFT refuses the adapter, and says so when it is attached
        choice = _nothing_known(free).choose(recipe)
    except Exception:  # a run is worth more than its speed; the log keeps what was wrong
        traceback.print_exc()
        choice = _nothing_known(free).choose(recipe)
    return dict(choice.chosen), choice.reasons


def _chooser(home: Home, recipe: Recipe, base: LoadedBase, data: DataFacts, free: int) -> "Chooser":
    from workbench.estimate import Pricing, TraceStore

    if is_sharded():
        return _nothing_known(free, "the base is sharded across GPUs")
    skeleton = skeleton_of(recipe, base)
    if skeleton is None:
        return _nothing_known(free)
    # Only steps that were followed before: following one would take the processor from the run.
    pricing = Pricing(skeleton, device_of(base), TraceStore(home.cache / "traces"))
    return pricing.chooser(free, data.lengths.p50)


def _nothing_known(free: int, lacking: str = "its step cannot be estimated") -> "Chooser":
    from workbench.estimate.fastest import Chooser

    return Chooser(None, free, lacking=lacking)


def _free_bytes(base: LoadedBase) -> int:
    """What the whole run may take, the base among it, which is there already: the estimate counts it too."""
    import torch

    if not torch.cuda.is_available():
        from workbench.machine.gpu import HostSampler

        host = HostSampler().sample()
        return min(host.available_bytes + base.footprint, host.total_bytes)
    from workbench.estimate.peak import CUDA_CONTEXT_BYTES

    free, total = torch.cuda.mem_get_info()
    return int(min(free + torch.cuda.memory_reserved() + CUDA_CONTEXT_BYTES, total))
