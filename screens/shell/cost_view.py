"""What the current recipe costs, as the figures that the Adapter tab shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from screens.session import Budget
from screens.shell.fit import Fit, judge
from screens.shell.header import short_gpu
from workbench.errors import WorkbenchError
from workbench.estimate import Device, Pricing, estimate, largest_fit
from workbench.estimate.adapter.plan import AdapterPlan, plan_adapter
from workbench.estimate.adapter.suggested_fix import changes_text, suggested_fix
from workbench.estimate.catalog_fit import by_method
from workbench.estimate.fastest import Faster, worth_following
from workbench.estimate.peak import on_device
from workbench.estimate.rules_of_thumb import rule_of_thumb
from workbench.recipe.resolved import limit_to_longest
from workbench.units import gib

if TYPE_CHECKING:
    from screens.session import Session
    from workbench.estimate import Tracer
    from workbench.estimate.fit import Suggestion
    from workbench.estimate.footprint import Footprint
    from workbench.estimate.peak import Peak
    from workbench.models.skeleton import Skeleton
    from workbench.recipe.resolved import ResolvedRecipe
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
    """Figures of one recipe on one model. Sizes are bytes.

    Attributes:
        absence: why there are no figures, in words; empty where there are.
        refusal: why PEFT would refuse the settings; then there is no plan.
        suggested_fix: a change that PEFT accepts, where one is known.
        terms: of the peak, with what the allocator holds in reserve and what the driver takes.
        reasons: what the recipe's ``auto`` came to and why, in sentences.
        unfollowed: the set-ups with only a formula for their peak, the selected one first.
        is_rough: the peak is a formula's (≈) and not that of a followed step.
        other_gpus: on a machine with several, the further ones and what the peak means for their free memory.
        priced_for: that it is for the longest record there is, in words; empty where it is for the longest allowed.
        figures: what change marks are made from.
    """

    budget: Budget
    absence: str = ""
    refusal: WorkbenchError | None = None
    suggested_fix: Cure | None = None
    plan: AdapterPlan | None = None
    base_bytes: int | None = None
    base_words: str = ""
    peak_bytes: int = 0
    terms: Mapping[str, int] = field(default_factory=dict)
    moment: str = ""
    reasons: tuple[str, ...] = ()
    unfollowed: tuple[ResolvedRecipe, ...] = ()
    is_rough: bool = False
    fit: Fit | None = None
    other_gpus: tuple[tuple[str, Fit], ...] = ()
    memory_word: str = "VRAM"
    priced_for: str = ""
    warnings: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outlook:
    """What other settings would cost.

    Attributes:
        by_method: peak bytes of the same settings on a 16-bit, int8 and nf4 base, where they are not refused.
        largest: the most that fits along batch, length and rank, the others as they are.
        suggestions: single changes that make it fit, cheapest first; empty where it fits.
        faster: the fastest set-up that fits; None where nothing is known of the memory.
    """

    by_method: Mapping[str, int]
    largest: Mapping[str, int]
    suggestions: tuple[Cure, ...]
    rule_of_thumb: str = ""
    faster: Faster | None = None


def costs_of(session: Session) -> Costs:
    """What the session's recipe costs on its model, against its budget of memory."""
    budget, skeleton, recipe = session.budget, session.skeleton, session.recipe
    if skeleton is None:
        error = session.skeleton_error
        return Costs(budget, absence=str(error) if error else f"Reading the configuration of {recipe.model.source} …")
    device = device_of(session)
    try:
        pricing = Pricing(skeleton, device, session.traces)
        fed, usual = fed_of(session)
        choice = pricing.chooser(budget.free_bytes, usual).choose(fed)
        priced = estimate(skeleton, choice.recipe, device=device, traced=session.traces)
    except WorkbenchError as error:
        return Costs(budget, refusal=error, suggested_fix=suggested_fix_of(skeleton, recipe)[1])
    plan, base, peak = priced.adapter, priced.base, on_device(device, priced.peak)
    fit = None if budget.free_bytes is None else judge(peak, budget.free_bytes)
    terms = dict(peak.terms)
    terms["reserved"] = max(0, peak.reserved_bytes - peak.allocated_bytes)
    return Costs(
        budget=budget,
        plan=plan,
        base_bytes=base.true_bytes,
        base_words=_storage_words(recipe),
        peak_bytes=peak.device_bytes,
        terms=terms,
        moment=peak.moment,
        reasons=choice.reasons,
        unfollowed=worth_following(choice, priced.peak),
        is_rough=peak.method == "closed-form",
        fit=fit,
        other_gpus=() if session.typed_budget is not None else tuple(_other_gpus(session, peak)),
        memory_word="VRAM" if device.kind == "cuda" else "memory",
        warnings=_warnings(base),
        priced_for=_priced_for(recipe, fed),
        figures={
            "trainable": plan.trainable_parameters,
            "file": plan.file_bytes,
            "base": base.true_bytes,
            "peak": peak.device_bytes,
        },
    )


def _other_gpus(session: Session, peak: Peak) -> Iterator[tuple[str, Fit]]:
    """A run takes one GPU; what the others would say."""
    for gpu in session.gpus[1:]:
        if gpu.free_bytes is not None:
            yield f"GPU {gpu.index} {short_gpu(gpu.name)}, {gib(gpu.free_bytes)} free", judge(peak, gpu.free_bytes)


def fed_of(session: Session) -> tuple[Recipe, int | None]:
    """The session's recipe as a run will be fed, and tokens of a usual record, both as far as the data is known."""
    recipe = session.recipe
    lengths = session.lengths_of(recipe)
    return (limit_to_longest(recipe, lengths.max), lengths.p50) if lengths is not None else (recipe, None)


def _priced_for(recipe: Recipe, fed: Recipe) -> str:
    if fed is recipe:
        return ""
    return f"estimated at {fed.data.max_length:,} tokens (longest record; limit {recipe.data.max_length:,})"


def outlook_of(
    skeleton: Skeleton,
    recipe: Recipe,
    device: Device,
    free_bytes: int | None,
    traced: Tracer | None = None,
    usual_length: int | None = None,
) -> Outlook:
    """What other settings would cost; some hundred predictions, so it belongs into a thread."""
    rule = rule_of_thumb(skeleton)
    peaks = by_method(skeleton, recipe, device, traced, free_bytes)
    sizes_by_method = {name: peak.device_bytes for name, peak in peaks.items()}
    words = rule.label if rule else ""
    if free_bytes is None:
        return Outlook(sizes_by_method, {}, (), words)
    largest = largest_fit(skeleton, recipe, free_bytes, device=device, traced=traced)
    sizes = {"batch": largest.batch, "length": largest.length, "r": largest.r}
    cures = estimate(skeleton, recipe, free_bytes=free_bytes, device=device, traced=traced).suggestions
    return Outlook(
        by_method=sizes_by_method,
        largest={name: value for name, value in sizes.items() if value is not None},
        suggestions=tuple(_cure(suggestion) for suggestion in cures),
        rule_of_thumb=words,
        faster=Pricing(skeleton, device, traced).chooser(free_bytes, usual_length).faster(recipe),
    )


def faster_of(session: Session) -> Faster | None:
    """The fastest set-up that fits for the session's recipe; None where too little is known to say."""
    if session.skeleton is None:
        return None
    fed, usual = fed_of(session)
    chooser = Pricing(session.skeleton, device_of(session), session.traces).chooser(session.budget.free_bytes, usual)
    try:
        return chooser.faster(fed)
    except WorkbenchError:  # the settings are refused, which the panel says
        return None


def device_of(session: Session) -> Device:
    """The device that the engine would use, as far as the terminal can see it."""
    from workbench.machine.gpu import computes_bfloat16

    gpu = next(iter(session.gpus), None)
    kind: Literal["cuda", "cpu"] = "cuda" if gpu is not None or session.host is None else "cpu"
    return Device(kind, bfloat16=(kind == "cuda" and gpu is None) or computes_bfloat16(gpu))


def suggested_fix_of(skeleton: Skeleton, recipe: Recipe) -> tuple[WorkbenchError | None, Cure | None]:
    """Why PEFT refuses the recipe's adapter for a model, and a change that it accepts; None for what there is not."""
    try:
        plan_adapter(skeleton, recipe.adapter)
    except WorkbenchError as error:
        changes = suggested_fix(skeleton, recipe)
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
