"""Whether a run fits a device, and what to change when it does not."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from workbench.errors import WorkbenchError
from workbench.estimate.peak import Peak
from workbench.recipe.resolved import ResolvedRecipe
from workbench.recipe.schema import RANK_STEPS
from workbench.recipe.text import edit

T = TypeVar("T")
Fit = Literal["fits", "tight", "does not fit"]
Predict = Callable[[ResolvedRecipe], Peak]

COMFORT = 0.95
"""Share of the free memory up to which a run simply fits; above it, it is tight."""

_LENGTHS = (32768, 16384, 8192, 4096, 2048, 1024, 512, 256, 128)
# What a change costs, from the cheapest to the dearest.
_TIME, _QUARTER, _NOTHING, _PRECISION, _LONG, _CAPACITY = COSTS = (
    "a little time",
    "about a quarter more time",
    "next to nothing in quality",
    "a little precision",
    "the ends of long records",
    "capacity",
)


@dataclass(frozen=True)
class Suggestion:
    """One change to the recipe and what it leads to.

    ``changes`` are dotted paths and values as :func:`workbench.recipe.text.edit` takes them.
    """

    label: str
    changes: Mapping[str, Any]
    peak_bytes: int
    cost: str

    def as_json(self) -> dict[str, Any]:
        return {"label": self.label, "changes": dict(self.changes), "peak_bytes": self.peak_bytes, "cost": self.cost}


def fit_of(peak: Peak, free_bytes: int) -> Fit:
    """``tight``: it fits only if the allocator gives back all that it holds in reserve."""
    if peak.device_bytes <= COMFORT * free_bytes:
        return "fits"
    if peak.allocated_bytes + peak.terms["cuda_context"] <= free_bytes:
        return "tight"
    return "does not fit"


def suggest(recipe: ResolvedRecipe, free_bytes: int, predict: Predict) -> tuple[Suggestion, ...]:
    """Single changes that make a recipe fit, cheapest first: what costs time before what costs quality."""
    found = []
    for label, changes, cost in _candidates(recipe):
        peak = _peak_after(recipe, changes, predict)
        if peak is not None and _fits(peak, free_bytes):
            found.append(Suggestion(label, changes, peak.device_bytes, cost))
    for label, cost, choices in _ladders(recipe):
        # If the last rung does not help, no rung does.
        if not choices or not _fits(_peak_after(recipe, choices[-1], predict), free_bytes):
            continue
        for changes in choices:
            peak = _peak_after(recipe, changes, predict)
            if peak is not None and _fits(peak, free_bytes):
                value = next(iter(changes.values()))
                found.append(Suggestion(f"{label} {value}", changes, peak.device_bytes, cost))
                break
    return tuple(sorted(found, key=lambda suggestion: COSTS.index(suggestion.cost)))


@dataclass(frozen=True)
class Largest:
    """The most that fits along each knob while the others stay; None where not even the least fits."""

    batch: int | None
    length: int | None
    r: int | None


def largest_that_fit(
    recipe: ResolvedRecipe, free_bytes: int, predict: Predict, context_length: int | None = None
) -> Largest:
    """Largest micro-batch, record length (in steps of 64, up to the model's) and rank (of the usual steps) that fit."""

    def fits(changes: Mapping[str, Any]) -> bool:
        return _fits(_peak_after(recipe, changes, predict), free_bytes)

    lengths = range(64, min(context_length or 131072, 131072) + 1, 64)
    return Largest(
        batch=last_where(range(1, 1025), lambda n: fits({"training.per_device_train_batch_size": n})),
        length=last_where(lengths, lambda n: fits({"data.max_length": n})),
        r=last_where(RANK_STEPS, lambda n: fits({"adapter.r": n})),
    )


def last_where(values: Sequence[T], holds: Callable[[T], bool]) -> T | None:
    """The last of growing values for which ``holds``, which is true up to some point and false from there on."""
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        if holds(values[middle]):
            low = middle + 1
        else:
            high = middle
    return values[low - 1] if low else None


def _fits(peak: Peak | None, free_bytes: int) -> bool:
    return peak is not None and fit_of(peak, free_bytes) == "fits"


def _peak_after(recipe: ResolvedRecipe, changes: Mapping[str, Any], predict: Predict) -> Peak | None:
    try:
        return predict(edit(recipe, changes))
    except WorkbenchError:  # this change alone is not a valid recipe, or not for this model
        return None


def _candidates(recipe: ResolvedRecipe) -> Iterator[tuple[str, dict[str, Any], str]]:
    training, quantization = recipe.training, recipe.quantization
    if not training.gradient_checkpointing:
        changes: dict[str, Any] = {"training.gradient_checkpointing": True}
        yield "gradient checkpointing on", changes, _QUARTER
    if training.optim in ("adamw_torch", "adamw_torch_fused"):
        yield "8-bit AdamW", {"training.optim": "adamw_8bit"}, _NOTHING
        yield "paged 8-bit AdamW", {"training.optim": "paged_adamw_8bit"}, _NOTHING
    if quantization.method in ("nf4", "fp4") and not quantization.double_quant:
        yield "double quantisation", {"quantization.double_quant": True}, _NOTHING
    if quantization.method == "none":
        yield "base in 8 bits", {"quantization.method": "int8"}, _PRECISION
    if quantization.method in ("none", "int8"):
        changes = {"quantization.method": "nf4", "quantization.double_quant": True}
        yield "base in 4 bits", changes, _PRECISION


def _ladders(recipe: ResolvedRecipe) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Knobs to turn down step by step until the run fits."""
    batch = recipe.training.per_device_train_batch_size
    effective = recipe.training.effective_batch
    sizes = [size for size in (batch // 2**power for power in range(1, 17)) if size >= 1]
    yield (
        "micro-batch",
        _TIME,
        [
            {
                "training.per_device_train_batch_size": size,
                "training.gradient_accumulation_steps": -(-effective // size),
            }
            for size in sizes
        ],
    )
    lengths = [length for length in _LENGTHS if length < recipe.data.max_length]
    yield "max length", _LONG, [{"data.max_length": length} for length in lengths]
    ranks = [r for r in reversed(RANK_STEPS) if r < recipe.adapter.r]
    yield "rank", _CAPACITY, [{"adapter.r": r} for r in ranks]
