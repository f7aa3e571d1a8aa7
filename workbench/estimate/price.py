"""The cost of a recipe on one model, computed once and shown by screens, start check, queue, run and CLI."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from workbench.errors import WorkbenchError
from workbench.estimate.adapter.plan import AdapterPlan
from workbench.estimate.adapter.settled import dropout_notice, without_impossible_dropout
from workbench.estimate.by_method import peaks_by_method
from workbench.estimate.doubt import doubt_of
from workbench.estimate.fastest import Choice, Chooser, SpeedAdvice
from workbench.estimate.fit import Fit, Largest, Suggestion, fit_of, largest_that_fit, suggest
from workbench.estimate.footprint import Footprint
from workbench.estimate.host_memory import LINK_BYTES_PER_SECOND, copying_seconds, is_within
from workbench.estimate.layer_shape import model_shape
from workbench.estimate.peak import Peak
from workbench.estimate.pricing import Pricing, Tracer
from workbench.estimate.rules_of_thumb import RuleOfThumb, rule_of_thumb
from workbench.estimate.setup import Setup
from workbench.estimate.step import Step, Variant
from workbench.machine.memory_budget import MemoryBudget
from workbench.models.skeleton import Skeleton
from workbench.models.stored_quantization import StoredQuantization, recipe_as_loaded, stored_quantization
from workbench.recipe.resolved import ResolvedRecipe
from workbench.recipe.schema import Recipe
from workbench.units import gib

_DOUBT_OF_A_TRACE = 0.02


@dataclass(frozen=True)
class Price:
    """What a recipe costs, and what other settings would cost. Properties that search take up to 0.1 s, once.

    Attributes:
        budget: the memory that the peak is compared with.
        asked: the recipe's setup, in which settings may be ``auto``.
        choice: the setup that is priced, without ``auto``, and the reasons for its values.
        base: the base as loaded, before any preparation.
        peak: the peak of one process of the run.
        fit: None if the free memory is unknown, or the base is sharded.
        stored_note: how a base that its files quantize is loaded; empty for others.
        stored_refusal: why such a base cannot be trained as the recipe asks; None if it can.
        notices: what was settled differently from the recipe's defaults, in sentences.
    """

    recipe: Recipe
    skeleton: Skeleton
    budget: MemoryBudget
    asked: Setup
    choice: Choice
    step: Step
    adapter: AdapterPlan
    base: Footprint
    peak: Peak
    fit: Fit | None
    notices: tuple[str, ...]
    _pricing: Pricing = field(repr=False)
    stored_note: str = ""
    stored_refusal: WorkbenchError | None = None

    @property
    def setup(self) -> Setup:
        """The setup that is priced, without ``auto`` settings."""
        return self.choice.setup

    @property
    def stored(self) -> StoredQuantization | None:
        """How the model's files quantize the base; None if they do not."""
        return self.asked.stored

    @property
    def objective_note(self) -> str:
        """How a step of the objective is priced; empty for supervised training."""
        objective = self.recipe.objective.spec
        if not objective.price_note:
            return ""
        start = " The reference is a copy of the adapter that the run starts from." if self.asked.keeps_start else ""
        return f"{objective.kind}: {objective.price_note}{start}"

    @property
    def host_note(self) -> str:
        """What checkpoints in host memory need of it and of time; empty if they stay on the device."""
        if not self.peak.host_bytes:
            return ""
        seconds = copying_seconds(model_shape(self.skeleton), self.step)
        return (
            f"Checkpoints take {gib(self.peak.host_bytes)} of host memory, pinned. Copying them takes about "
            f"{seconds:.2g} s a micro-batch at an assumed {LINK_BYTES_PER_SECOND / 1e9:.0f} GB/s, while layers compute."
        )

    @property
    def is_by_formula(self) -> bool:
        """Whether the peak was estimated by formula (≈), not with a traced step."""
        return self.peak.method == "closed-form"

    @property
    def doubt(self) -> float:
        """How far the peak may be off, as a share: by formula as far as for models of this architecture."""
        if not self.is_by_formula:
            return _DOUBT_OF_A_TRACE
        return doubt_of(self.skeleton, checkpointing=bool(self.setup.checkpointing))

    @cached_property
    def suggestions(self) -> tuple[Suggestion, ...]:
        """Single changes that make it fit, cheapest first; empty if it fits or the free memory is unknown."""
        if self.budget.free_bytes is None or self.fit in (None, "fits"):
            return ()
        found = suggest(self.setup, self.budget, self._pricing.peak)
        # What the recipe leaves open is decided anew after the change: that peak is promised, not an intermediate one.
        return tuple(replace(change, peak_bytes=self._peak_after(change.changes)) for change in found)

    def _peak_after(self, changes: Mapping[str, Any]) -> int:
        asked = self.asked.varied(changes)
        still_open = tuple(path for path in asked.auto_keys if path not in changes)
        asked = replace(asked, auto_keys=still_open)
        choice = Chooser(self._pricing.peak, self.budget).choose(asked)
        return self._pricing.peak(choice.setup).device_bytes

    @cached_property
    def faster(self) -> SpeedAdvice | None:
        """The fastest setup that fits at the same effective batch; None if it cannot be determined."""
        return Chooser(self._pricing.peak, self.budget).faster(self.asked)

    @cached_property
    def largest(self) -> Largest:
        """The largest micro-batch, record length and rank that fit, each with the other two unchanged.

        Settings on ``auto`` take the values that need the least memory, as they would if the others were that large.
        """
        if self.budget.free_bytes is None:
            return Largest(None, None, None)
        context = self.skeleton.root.facts.get("context_length")
        least = Chooser(self._pricing.peak, self.budget).least_memory(self.asked)
        return largest_that_fit(least, self.budget, self._pricing.peak, context)

    @cached_property
    def by_method(self) -> Mapping[str, Peak]:
        """Peaks of the same settings on a 16-bit, int8 and nf4 base, except where they are refused."""
        return peaks_by_method(self._pricing, self.asked, self.budget)

    @property
    def rule_of_thumb(self) -> RuleOfThumb | None:
        """What tutorials say about a model of this size."""
        return rule_of_thumb(self.skeleton)

    @property
    def worth_tracing(self) -> tuple[ResolvedRecipe, ...]:
        """Recipes whose peak was estimated by formula: the priced one, and those that it was compared with."""
        if self.stored is not None and self.stored.is_packed:
            return ()
        own = (self.setup,) if self.is_by_formula else ()
        setups = own + tuple(setup for setup in self.choice.untraced if setup not in own)
        return tuple(setup.applied_to(self.recipe) for setup in setups)

    def looked_up_in(self, traced: Tracer) -> "Price":
        """The same price, whose searches use ``traced`` to look up traced steps."""
        return replace(self, _pricing=replace(self._pricing, traced=traced))

    def as_json(self) -> dict[str, Any]:
        """What ``loraworkbench estimate --json`` prints. ``fits`` is null if no free memory was given."""
        return {
            "model": {
                "source": self.recipe.model.source,
                "architecture": self.skeleton.architecture,
                "parameters": self.skeleton.parameters,
                "stored_quantization": self.stored.label if self.stored else None,
            },
            "adapter": self.adapter.as_json(),
            "base": {
                "footprint_bytes": self.base.footprint_bytes,
                "true_bytes": self.base.true_bytes,
                "not_quantized": list(self.base.not_quantised),
            },
            "peak": {**self.peak.as_json(), "doubt": self.doubt},
            "fits": None if self.fit is None else self.fit != "does not fit",
            "suggestions": [suggestion.as_json() for suggestion in self.suggestions],
            "chosen": dict(self.choice.chosen),
            "reasons": list(self.choice.reasons),
            "refused": None if self.stored_refusal is None else str(self.stored_refusal),
            "notices": list(self.notices),
        }


def price(
    skeleton: Skeleton,
    recipe: Recipe,
    budget: MemoryBudget | None = None,
    *,
    longest: int | None = None,
    median: int | None = None,
    labels: int | None = None,
    variant: Variant = "workbench",
    traced: Tracer | None = None,
    replays: bool = False,
) -> Price:
    """Price a recipe on a model. A base that its files quantize is priced as it would be loaded.

    Args:
        budget: the memory of the device to train on; default: unknown, on a GPU with bfloat16. Settings on ``auto``
            get the fastest values that fit; if the memory is unknown, those that need the least.
        longest: tokens of the longest record, if known.
        median: tokens of the median record, if known.
        labels: of the records for classification, if known.
        variant: ``plain`` prices the step of common notebooks instead of this program's.
        traced: looks up traced steps, such as ``TraceStore(home.cache / "traces")``; default: the traces that come
            with the package. Without a trace of this recipe's step, the peak is estimated by formula.
        replays: replay PyTorch's allocator at the sizes of this recipe, which takes up to a second; else its overhead
            is interpolated.

    Raises:
        WorkbenchError: PEFT would refuse the adapter for this model.
    """
    budget = budget or MemoryBudget()
    stored = stored_quantization(skeleton.config)
    stored_note, stored_refusal = "", None
    if stored is not None:
        stored_note = stored.note(recipe.quantization)
        stored_refusal = stored.refusal(recipe.quantization, recipe.adapter)
        recipe = recipe_as_loaded(recipe, skeleton.config)
    settled = without_impossible_dropout(skeleton, recipe)
    notices = tuple(filter(None, [dropout_notice(recipe, settled)]))
    recipe = settled
    asked = Setup.of(recipe, longest, median, stored, labels)
    pricing = Pricing(skeleton, budget.device, traced, variant)
    base, lacking = pricing.base(asked), ""
    if budget.largest_base is not None and base.allocated_bytes > budget.largest_base:
        budget, lacking = replace(budget, free_bytes=None), "the base is sharded across GPUs"
    choice = Chooser(pricing.peak, budget, lacking).choose(asked)
    peak = pricing.replayed_peak(choice.setup) if replays else pricing.peak(choice.setup, all_phases=True)
    if not is_within(peak.host_bytes, budget.host_bytes):
        need, available = gib(peak.host_bytes), gib(budget.host_bytes or 0)
        notices += (f"Checkpoints need {need} of host memory, of which {available} are available.",)
    return Price(
        recipe=recipe,
        skeleton=skeleton,
        budget=budget,
        asked=asked,
        choice=choice,
        step=pricing.step(choice.setup),
        adapter=pricing.adapter(choice.setup),
        base=base,
        peak=peak,
        fit=None if budget.free_bytes is None else fit_of(peak, budget.free_bytes),
        notices=notices,
        _pricing=pricing,
        stored_note="" if stored_refusal else stored_note,
        stored_refusal=stored_refusal,
    )
