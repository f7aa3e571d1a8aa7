"""What the current recipe costs, as the figures that the Adapter tab shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from screens.shell.fit import Fit, judge
from screens.shell.header import short_gpu
from workbench.errors import WorkbenchError
from workbench.estimate import Price, Setup, price
from workbench.estimate.adapter.plan import plan_adapter
from workbench.estimate.adapter.suggested_fix import changes_text, suggested_fix
from workbench.estimate.fastest import SpeedAdvice
from workbench.planning.launch import gpus_of
from workbench.units import gib

if TYPE_CHECKING:
    from screens.session import Session
    from workbench.estimate.fit import Suggestion
    from workbench.estimate.footprint import Footprint
    from workbench.machine.memory_budget import MemoryBudget
    from workbench.models.skeleton import Skeleton
    from workbench.recipe.schema import Recipe


@dataclass(frozen=True)
class Cure:
    """A change that makes a recipe fit, or work at all; ``short``: in few words; ``cost``: what it costs."""

    sentence: str
    short: str
    changes: Mapping[str, object]
    cost: str = ""


@dataclass(frozen=True)
class Costs:
    """What the Adapter tab shows of one recipe on one model. Sizes are bytes.

    Attributes:
        absence: why there is no price, in words; empty where there is one.
        refusal: why PEFT would refuse the settings; then there is no price.
        suggested_fix: a change that PEFT accepts, where one is known.
        terms: of the peak, with what the allocator holds in reserve and what the driver takes.
        other_gpus: the GPUs that the run does not take, and what the peak means for their free memory.
        priced_for: that it is for the longest record there is, in words; empty where it is for the longest allowed.
        figures: what change marks are made from.
    """

    budget: MemoryBudget
    absence: str = ""
    refusal: WorkbenchError | None = None
    suggested_fix: Cure | None = None
    price: Price | None = None
    base_words: str = ""
    terms: Mapping[str, int] = field(default_factory=dict)
    fit: Fit | None = None
    other_gpus: tuple[tuple[str, Fit], ...] = ()
    memory_word: str = "VRAM"
    priced_for: str = ""
    warnings: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_rough(self) -> bool:
        """Whether the peak is a formula's (≈)."""
        return self.price is not None and self.price.is_rough


@dataclass(frozen=True)
class Outlook:
    """What other settings would cost.

    Attributes:
        by_method: peak bytes of the same settings on a 16-bit, int8 and nf4 base, where they are not refused.
        largest: the most that fits along batch, length and rank, the others as they are.
        suggestions: single changes that make it fit, cheapest first; empty where it fits.
        faster: the fastest setup that fits; None where nothing is known of the memory.
    """

    by_method: Mapping[str, int]
    largest: Mapping[str, int]
    suggestions: tuple[Cure, ...]
    rule_of_thumb: str = ""
    faster: SpeedAdvice | None = None


def costs_of(session: Session) -> Costs:
    """What the session's recipe costs on its model, against its memory budget."""
    budget, skeleton, recipe = session.budget, session.skeleton, session.recipe
    if skeleton is None:
        error = session.skeleton_error
        return Costs(budget, absence=str(error) if error else f"Reading the configuration of {recipe.model.source} …")
    try:
        priced = price_of(session, skeleton)
    except WorkbenchError as error:
        return Costs(budget, refusal=error, suggested_fix=suggested_fix_of(skeleton, recipe)[1])
    budget, peak = priced.budget, priced.peak
    terms = dict(peak.terms)
    terms["reserved"] = max(0, peak.reserved_bytes - peak.allocated_bytes)
    return Costs(
        budget=budget,
        price=priced,
        base_words=_storage_words(recipe),
        terms=terms,
        fit=None if budget.free_bytes is None else judge(peak, budget.free_bytes),
        other_gpus=() if budget.is_typed else tuple(_other_gpus(session, priced)),
        memory_word="VRAM" if budget.device.kind == "cuda" else "memory",
        warnings=_warnings(priced.base),
        priced_for=_priced_for(priced),
        figures={
            "trainable": priced.adapter.trainable_parameters,
            "file": priced.adapter.file_bytes,
            "base": priced.base.true_bytes,
            "peak": peak.device_bytes,
        },
    )


def price_of(session: Session, skeleton: Skeleton) -> Price:
    """The price of the session's recipe, as far as its records and this machine are known.

    Raises:
        WorkbenchError: PEFT would refuse the adapter for this model.
    """
    lengths = session.lengths_of(session.recipe)
    longest, median = (lengths.max, lengths.p50) if lengths is not None else (None, None)
    return price(skeleton, session.recipe, session.budget, longest=longest, median=median, traced=session.traces)


def _other_gpus(session: Session, priced: Price) -> Iterator[tuple[str, Fit]]:
    """The GPUs that a run does not take; what they would say."""
    if priced.budget.device.kind != "cuda":
        return
    taken = {gpu.index for gpu in gpus_of(session.launch, session.gpus)}
    for gpu in session.gpus:
        if gpu.index not in taken and gpu.free_bytes is not None:
            label = f"GPU {gpu.index} {short_gpu(gpu.name)}, {gib(gpu.free_bytes)} free"
            yield label, judge(priced.peak, gpu.free_bytes)


def _priced_for(priced: Price) -> str:
    length, limit = priced.setup.length, priced.recipe.data.max_length
    return f"estimated at {length:,} tokens (longest record; limit {limit:,})" if length < limit else ""


def outlook_of(priced: Price) -> Outlook:
    """What other settings would cost; some hundred predictions, so it belongs into a thread."""
    largest = priced.largest
    sizes = {"batch": largest.batch, "length": largest.length, "r": largest.r}
    return Outlook(
        by_method={name: peak.device_bytes for name, peak in priced.by_method.items()},
        largest={name: value for name, value in sizes.items() if value is not None},
        suggestions=tuple(_cure(suggestion) for suggestion in priced.suggestions),
        rule_of_thumb=priced.rule_of_thumb.label if priced.rule_of_thumb else "",
        faster=priced.faster,
    )


def faster_of(session: Session) -> SpeedAdvice | None:
    """The fastest setup that fits for the session's recipe; None where too little is known to say."""
    if session.skeleton is None:
        return None
    try:
        return price_of(session, session.skeleton).faster
    except WorkbenchError:  # the settings are refused, which the panel says
        return None


def suggested_fix_of(skeleton: Skeleton, recipe: Recipe) -> tuple[WorkbenchError | None, Cure | None]:
    """Why PEFT refuses the recipe's adapter for a model, and a change that it accepts; None for what there is not."""
    try:
        plan_adapter(skeleton, recipe.adapter)
    except WorkbenchError as error:
        changes = suggested_fix(skeleton, Setup.of(recipe).adapter)
        if not changes:
            return error, None
        words = changes_text(changes)
        return error, Cure(f"It works with {words}.", words, changes)
    return None, None


def _cure(suggestion: Suggestion) -> Cure:
    label = suggestion.label[:1].upper() + suggestion.label[1:]
    return Cure(
        f"{label} makes it fit ({gib(suggestion.peak_bytes)}); costs {suggestion.cost}.",
        f"{suggestion.label} ({gib(suggestion.peak_bytes)})",
        suggestion.changes,
        suggestion.cost,
    )


def _storage_words(recipe: Recipe) -> str:
    quantization = recipe.quantization
    if quantization.method == "none":
        return "not quantised"
    double = quantization.double_quant and quantization.method in ("nf4", "fp4")
    return f"{quantization.method}, double" if double else quantization.method


def _warnings(base: Footprint) -> tuple[str, ...]:
    if not base.not_quantised:
        return ()
    names = ", ".join(dict.fromkeys(path.rpartition(".")[2] for path in base.not_quantised))
    return (f"{gib(base.not_quantised_bytes)} stay in 16 bits: {names} cannot be quantised.",)
