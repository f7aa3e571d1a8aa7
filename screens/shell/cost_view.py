"""The memory, sizes and alternatives of the current recipe, as the Adapter tab shows them."""

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
    from workbench.machine.memory_budget import MemoryBudget
    from workbench.models.skeleton import Skeleton
    from workbench.recipe.schema import Recipe


@dataclass(frozen=True)
class SuggestedChange:
    """A change to the recipe that makes it fit the memory, or makes PEFT accept it.

    Attributes:
        sentence: for a message. short: for a list.
        changes: dotted keys of the recipe and their new values.
        cost: what the user pays for it, such as "a little time"; empty if it only makes PEFT accept the recipe.
    """

    sentence: str
    short: str
    changes: Mapping[str, object]
    cost: str = ""


@dataclass(frozen=True)
class Costs:
    """The costs of one recipe on one model, for the Adapter tab. Sizes are in bytes.

    There is a ``price``, or a ``refusal``, or, if the model's module tree is not known, ``no_tree``.

    Attributes:
        no_tree: says why the module tree is not known, or that it is being read.
        refusal: why PEFT refuses the adapter settings.
        suggested_fix: a change that makes PEFT accept them; None if no such change is known.
        storage: how the base is quantized, in words.
        terms: the parts of the peak by name, including the allocator's reserve and the CUDA context.
        fit: None if the free memory is unknown.
        other_gpus: the GPUs that the run does not use, each with whether the peak would fit its free memory.
        memory_word: VRAM, or memory if the run uses the CPU.
        priced_length: says that the price assumes the longest record; empty if it assumes ``data.max_length``.
        figures: by name, the numbers that the panel compares with the previous ones to mark changes.
    """

    budget: MemoryBudget
    no_tree: str = ""
    refusal: WorkbenchError | None = None
    suggested_fix: SuggestedChange | None = None
    price: Price | None = None
    storage: str = ""
    terms: Mapping[str, int] = field(default_factory=dict)
    fit: Fit | None = None
    other_gpus: tuple[tuple[str, Fit], ...] = ()
    memory_word: str = "VRAM"
    priced_length: str = ""
    warnings: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_by_formula(self) -> bool:
        """Whether the peak was computed by a formula (≈), not traced."""
        return self.price is not None and self.price.is_by_formula


@dataclass(frozen=True)
class Outlook:
    """The costs of other settings.

    Attributes:
        by_method: peak bytes with a 16-bit, int8 and nf4 base, without those that the settings do not allow.
        largest: the largest batch, length and r that fit, each with the other two unchanged.
        suggestions: single changes that make the recipe fit, cheapest first; empty if it fits.
        rule_of_thumb: what tutorials say about models of this size; empty if they say nothing.
        faster: the fastest setup that fits; None if too little is known about the memory.
    """

    by_method: Mapping[str, int]
    largest: Mapping[str, int]
    suggestions: tuple[SuggestedChange, ...]
    rule_of_thumb: str = ""
    faster: SpeedAdvice | None = None


def costs_of(session: Session) -> Costs:
    """The costs of the session's recipe on its model, compared with the session's memory budget."""
    budget, skeleton, recipe = session.budget, session.skeleton, session.recipe
    if skeleton is None:
        error = session.skeleton_error
        return Costs(budget, no_tree=str(error) if error else f"Reading the configuration of {recipe.model.source} …")
    try:
        priced = price_of(session, skeleton)
    except WorkbenchError as error:
        return Costs(budget, refusal=error, suggested_fix=refusal_and_fix(skeleton, recipe)[1])
    budget, peak = priced.budget, priced.peak
    terms = dict(peak.terms)
    terms["reserved"] = max(0, peak.reserved_bytes - peak.allocated_bytes)
    return Costs(
        budget=budget,
        price=priced,
        storage=priced.stored.label if priced.stored else _storage_words(recipe),
        terms=terms,
        fit=None if budget.free_bytes is None else judge(peak, budget.free_bytes),
        other_gpus=() if budget.is_typed else tuple(_other_gpus(session, priced)),
        memory_word="VRAM" if budget.device.kind == "cuda" else "memory",
        warnings=(*priced.notices, *_warnings(priced)),
        priced_length=_priced_length(priced),
        figures={
            "trainable": priced.adapter.trainable_parameters,
            "file": priced.adapter.file_bytes,
            "base": priced.base.true_bytes,
            "peak": peak.device_bytes,
        },
    )


def price_of(session: Session, skeleton: Skeleton) -> Price:
    """The price of the session's recipe, using what is known about its records and this machine.

    Raises:
        WorkbenchError: PEFT would refuse the adapter for this model.
    """
    lengths = session.lengths_of(session.recipe)
    longest, median = (lengths.max, lengths.p50) if lengths is not None else (None, None)
    return price(skeleton, session.recipe, session.budget, longest=longest, median=median, traced=session.traces)


def price_after(session: Session, recipe: Recipe) -> str:
    """The price of another recipe in a few words; what stands in its way if it has none."""
    skeleton, budget = session.skeleton, session.budget
    if skeleton is None or recipe.model != session.recipe.model:
        return ""
    lengths = session.lengths_of(recipe)
    longest, median = (lengths.max, lengths.p50) if lengths is not None else (None, None)
    try:
        priced = price(skeleton, recipe, budget, longest=longest, median=median, traced=session.traces)
    except WorkbenchError as error:
        return error.message
    memory = "VRAM" if budget.device.kind == "cuda" else "Memory"
    need = f"{memory} peak {gib(priced.peak.device_bytes)}"
    return need if budget.free_bytes is None else f"{need}: {judge(priced.peak, budget.free_bytes).phrase}"


def _other_gpus(session: Session, priced: Price) -> Iterator[tuple[str, Fit]]:
    """The GPUs that the run does not use, each with whether the peak would fit its free memory."""
    if priced.budget.device.kind != "cuda":
        return
    used = {gpu.index for gpu in gpus_of(session.launch, session.gpus)}
    for gpu in session.gpus:
        if gpu.index not in used and gpu.free_bytes is not None:
            label = f"GPU {gpu.index} {short_gpu(gpu.name)}, {gib(gpu.free_bytes)} free"
            yield label, judge(priced.peak, gpu.free_bytes)


def _priced_length(priced: Price) -> str:
    length, limit = priced.setup.length, priced.recipe.data.max_length
    return f"estimated at {length:,} tokens (longest record; limit {limit:,})" if length < limit else ""


def outlook_of(priced: Price) -> Outlook:
    """The costs of other settings. Call it in a thread: it makes about a hundred predictions."""
    largest = priced.largest
    sizes = {"batch": largest.batch, "length": largest.length, "r": largest.r}
    return Outlook(
        by_method={name: peak.device_bytes for name, peak in priced.by_method.items()},
        largest={name: value for name, value in sizes.items() if value is not None},
        suggestions=tuple(_suggested_change(suggestion) for suggestion in priced.suggestions),
        rule_of_thumb=priced.rule_of_thumb.label if priced.rule_of_thumb else "",
        faster=priced.faster,
    )


def speed_advice_of(session: Session) -> SpeedAdvice | None:
    """The fastest setup that fits for the session's recipe; None if it cannot be determined."""
    if session.skeleton is None:
        return None
    try:
        return price_of(session, session.skeleton).faster
    except WorkbenchError:  # PEFT refuses the settings; the panel shows why
        return None


def refusal_and_fix(skeleton: Skeleton, recipe: Recipe) -> tuple[WorkbenchError | None, SuggestedChange | None]:
    """Why PEFT refuses the recipe's adapter for a model, and a change that makes PEFT accept it.

    Both are None if PEFT accepts the adapter; the change is also None if none is known.
    """
    try:
        plan_adapter(skeleton, Setup.of(recipe).adapter)
    except WorkbenchError as error:
        changes = suggested_fix(skeleton, Setup.of(recipe).adapter)
        if not changes:
            return error, None
        words = changes_text(changes)
        return error, SuggestedChange(f"It works with {words}.", words, changes)
    return None, None


def _suggested_change(suggestion: Suggestion) -> SuggestedChange:
    label = suggestion.label[:1].upper() + suggestion.label[1:]
    return SuggestedChange(
        f"{label} makes it fit ({gib(suggestion.peak_bytes)}); costs {suggestion.cost}.",
        f"{suggestion.label} ({gib(suggestion.peak_bytes)})",
        suggestion.changes,
        suggestion.cost,
    )


def _storage_words(recipe: Recipe) -> str:
    quantization = recipe.quantization
    if quantization.method == "none":
        return "not quantized"
    double = quantization.double_quant and quantization.method in ("nf4", "fp4")
    return f"{quantization.method}, double" if double else quantization.method


def _warnings(priced: Price) -> Iterator[str]:
    if priced.stored_refusal is not None:
        yield str(priced.stored_refusal)
    elif priced.stored_note:
        yield priced.stored_note
    if priced.objective_note:
        yield priced.objective_note
    if left_out := priced.adapter.left_out_text:
        yield left_out
    base = priced.base
    if base.not_quantised:
        names = ", ".join(dict.fromkeys(path.rpartition(".")[2] for path in base.not_quantised))
        yield f"{gib(base.not_quantised_bytes)} stay in 16 bits: {names} cannot be quantized."
