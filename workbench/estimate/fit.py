"""Decides whether a predicted peak fits the free memory, and finds settings that make it fit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from workbench.errors import WorkbenchError
from workbench.estimate.host_memory import is_within
from workbench.estimate.peak import Peak
from workbench.estimate.setup import Setup
from workbench.machine.memory_budget import MemoryBudget
from workbench.recipe.resolved import ACCUMULATION, MICRO_BATCH
from workbench.recipe.sections.adapter import RANK_STEPS
from workbench.recipe.sections.section import OFFLOAD
from workbench.recipe.sections.training import MAX_MICRO_BATCHES

T = TypeVar("T")
Fit = Literal["fits", "tight", "does not fit"]
Predict = Callable[[Setup], Peak]

# A peak fits if it takes at most this share of the free memory.
_FITTING_SHARE = 0.95
_LENGTHS = (32768, 16384, 8192, 4096, 2048, 1024, 512, 256, 128)
# What a change costs the user, the cheapest first.
_TIME, _ROUNDING, _HOST, _QUARTER, _NOTHING, _PRECISION, _LONG, _CAPACITY = COSTS = (
    "a little time",
    "a little time, and other rounding",
    "a little time and host memory",
    "about a quarter more time",
    "next to nothing in quality",
    "a little precision",
    "the ends of long records",
    "capacity",
)


@dataclass(frozen=True)
class Suggestion:
    """A change to the recipe that makes it fit.

    Attributes:
        label: names the change, such as "base in 4 bits".
        changes: dotted keys of the recipe and their new values, for :func:`workbench.recipe.text.edit`.
        peak_bytes: the peak after the change.
        cost: what the change costs the user, one of ``COSTS``.
    """

    label: str
    changes: Mapping[str, Any]
    peak_bytes: int
    cost: str

    def as_json(self) -> dict[str, Any]:
        return {"label": self.label, "changes": dict(self.changes), "peak_bytes": self.peak_bytes, "cost": self.cost}


def fit_of(peak: Peak, free_bytes: int) -> Fit:
    """Whether a peak fits the free memory.

    It is ``tight`` if it takes more than 95 %, but is within the memory once the allocator gives back its reserve.
    """
    if peak.device_bytes <= _FITTING_SHARE * free_bytes:
        return "fits"
    if peak.least_bytes <= free_bytes:
        return "tight"
    return "does not fit"


def suggest(setup: Setup, budget: MemoryBudget, predict: Predict) -> tuple[Suggestion, ...]:
    """The single changes that make a setup fit, cheapest first: what costs time comes before what costs quality."""
    found: list[Suggestion] = []
    for label, changes, cost in _switches(setup):
        if any(other.changes.items() <= changes.items() for other in found):
            continue  # a part of it is enough
        peak = _peak_after(setup, changes, predict)
        if peak is not None and fits_in(peak, budget):
            found.append(Suggestion(label, changes, peak.device_bytes, cost))
    for label, cost, steps in _reductions(setup):
        # If the last and largest reduction does not fit, none does.
        if not steps or not fits_in(_peak_after(setup, steps[-1], predict), budget):
            continue
        for changes in steps:
            peak = _peak_after(setup, changes, predict)
            if peak is not None and fits_in(peak, budget):
                value = next(iter(changes.values()))
                found.append(Suggestion(f"{label} {value}", changes, peak.device_bytes, cost))
                break
    return tuple(sorted(found, key=lambda suggestion: COSTS.index(suggestion.cost)))


@dataclass(frozen=True)
class Largest:
    """The largest value of each setting that fits with the other two unchanged; None if not even the smallest fits."""

    batch: int | None
    length: int | None
    r: int | None


def largest_that_fit(
    setup: Setup, budget: MemoryBudget, predict: Predict, context_length: int | None = None
) -> Largest:
    """The largest micro-batch, record length and rank that fit.

    Args:
        context_length: the model's, in tokens; record lengths are tried up to it, in steps of 64.
    """

    def fits(changes: Mapping[str, Any]) -> bool:
        return fits_in(_peak_after(setup, changes, predict), budget)

    lengths = range(64, min(context_length or 131072, 131072) + 1, 64)
    return Largest(
        batch=last_accepted(range(1, 1025), lambda n: fits({MICRO_BATCH: n})),
        length=last_accepted(lengths, lambda n: fits({"data.max_length": n})),
        r=last_accepted(RANK_STEPS, lambda n: fits({"adapter.r": n})),
    )


def last_accepted(values: Sequence[T], accepts: Callable[[T], bool]) -> T | None:
    """The last value that ``accepts`` accepts, found by bisection; None if it accepts none.

    ``accepts`` must accept all values before some point of the sequence and none after it.
    """
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        if accepts(values[middle]):
            low = middle + 1
        else:
            high = middle
    return values[low - 1] if low else None


def fits_in(peak: Peak | None, budget: MemoryBudget, share: float = 1.0) -> bool:
    """Whether a peak fits the free memory of a budget, or this share of it, and its checkpoints the host's."""
    if peak is None or not is_within(peak.host_bytes, budget.host_bytes):
        return False
    return fit_of(peak, int((budget.free_bytes or 0) * share)) == "fits"


def _peak_after(setup: Setup, changes: Mapping[str, Any], predict: Predict) -> Peak | None:
    """The predicted peak with the changes; None if they are not allowed."""
    try:
        return predict(setup.varied(changes))
    except WorkbenchError:  # the changed recipe is not valid, or PEFT refuses it for this model
        return None


def _switches(setup: Setup) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Label, changes and cost of each change that is made or not."""
    if not setup.checkpointing:
        changes: dict[str, Any] = {"training.gradient_checkpointing": True}
        yield "gradient checkpointing on", changes, _QUARTER
    if setup.checkpointing != OFFLOAD:
        changes = {"training.gradient_checkpointing": OFFLOAD}
        yield "checkpoints in host memory", changes, _HOST if setup.checkpointing else _QUARTER
    if not setup.tiles_mlp:
        yield "MLPs in pieces", {"training.tiled_mlp": True}, _ROUNDING
        if setup.checkpointing != OFFLOAD:
            changes = {"training.gradient_checkpointing": OFFLOAD, "training.tiled_mlp": True}
            yield "checkpoints in host memory, MLPs in pieces", changes, _HOST if setup.checkpointing else _QUARTER
    if setup.attention == "eager":
        yield "fused attention", {"model.attn_implementation": "auto"}, _NOTHING
    if setup.optimizer in ("adamw_torch", "adamw_torch_fused"):
        yield "8-bit AdamW", {"training.optim": "adamw_8bit"}, _NOTHING
        yield "paged 8-bit AdamW", {"training.optim": "paged_adamw_8bit"}, _NOTHING
    if setup.method in ("nf4", "fp4") and not setup.double_quant:
        yield "double quantization", {"quantization.double_quant": True}, _NOTHING
    if setup.method == "none":
        yield "base in 8 bits", {"quantization.method": "int8"}, _PRECISION
    if setup.method in ("none", "int8"):
        changes = {"quantization.method": "nf4", "quantization.double_quant": True}
        yield "base in 4 bits", changes, _PRECISION


def _reductions(setup: Setup) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Label, cost and changes of each setting that can be reduced step by step until the setup fits."""
    halves = (setup.micro_batch // 2**power for power in range(1, 17))
    sizes = [size for size in halves if size >= setup.least_micro_batch]
    batches = [{MICRO_BATCH: size, ACCUMULATION: -(-setup.effective_batch // size)} for size in sizes]
    yield "micro-batch", _TIME, [batch for batch in batches if batch[ACCUMULATION] <= MAX_MICRO_BATCHES]
    lengths = [length for length in _LENGTHS if length < setup.length]
    yield "max length", _LONG, [{"data.max_length": length} for length in lengths]
    ranks = [r for r in reversed(RANK_STEPS) if r < setup.adapter.r]
    yield "rank", _CAPACITY, [{"adapter.r": r} for r in ranks]
