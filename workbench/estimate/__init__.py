"""What a recipe costs on a model, before a GPU second is spent: :func:`estimate`. Needs no torch and no GPU."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from workbench.estimate.adapter.plan import AdapterDtypes, AdapterPlan, plan_adapter
from workbench.estimate.adapter.settings import LoraSettings
from workbench.estimate.closed_form import closed_form_peak
from workbench.estimate.fastest import Choice, Chooser, worth_following
from workbench.estimate.fit import Fit, Largest, Suggestion, fit_of, largest_that_fit, suggest
from workbench.estimate.footprint import Footprint, Storage, measure_base
from workbench.estimate.layer_shape import model_shape
from workbench.estimate.peak import Peak
from workbench.estimate.rules_of_thumb import RuleOfThumb, rule_of_thumb
from workbench.estimate.step import Device, Step, Variant, plan_step
from workbench.estimate.trace.store import TraceStore
from workbench.models.skeleton import Skeleton
from workbench.recipe.resolved import ResolvedRecipe, resolved
from workbench.recipe.schema import Recipe

__all__ = ["Device", "Estimate", "Pricing", "TraceStore", "Tracer", "Variant", "estimate", "largest_fit", "plan_step"]

Tracer = Callable[[Skeleton, Recipe, Step, AdapterPlan], Peak | None]
"""Looks up a followed step for a recipe; None where there is none yet."""


@dataclass(frozen=True)
class Estimate:
    """What a recipe costs.

    Attributes:
        choice: the recipe that is priced, and why what it left open came to what it did.
        base: as loaded, before any preparation.
        fit: None when no free memory was given.
        suggestions: single changes that make a misfit fit, cheapest first; empty when it fits.
        rule_of_thumb: what tutorials say of a model of this size.
    """

    model: str
    skeleton: Skeleton
    choice: Choice
    step: Step
    adapter: AdapterPlan
    base: Footprint
    peak: Peak
    fit: Fit | None
    suggestions: tuple[Suggestion, ...]

    @property
    def worth_following(self) -> tuple[ResolvedRecipe, ...]:
        """The set-ups whose peak is a formula's: the one that is priced, and those that it was weighed against."""
        return worth_following(self.choice, self.peak)

    @property
    def rule_of_thumb(self) -> RuleOfThumb | None:
        return rule_of_thumb(self.skeleton)

    def as_json(self) -> dict[str, Any]:
        """What ``loraworkbench estimate --json`` prints. ``fits`` is null when no free memory was given."""
        return {
            "model": {
                "source": self.model,
                "architecture": self.skeleton.architecture,
                "parameters": self.skeleton.parameters,
            },
            "adapter": self.adapter.as_json(),
            "base": {
                "footprint_bytes": self.base.footprint_bytes,
                "true_bytes": self.base.true_bytes,
                "not_quantized": list(self.base.not_quantised),
            },
            "peak": self.peak.as_json(),
            "fits": None if self.fit is None else self.fit != "does not fit",
            "suggestions": [suggestion.as_json() for suggestion in self.suggestions],
            "chosen": dict(self.choice.chosen),
            "reasons": list(self.choice.reasons),
        }


def estimate(
    skeleton: Skeleton,
    recipe: Recipe,
    *,
    free_bytes: int | None = None,
    device: Device | None = None,
    variant: Variant = "workbench",
    traced: Tracer | None = None,
) -> Estimate:
    """Price a recipe on a model.

    Args:
        recipe: what it leaves open is decided by what fits; without ``free_bytes`` it takes the least memory.
        free_bytes: free memory of the device that is to train; None leaves ``fit`` and ``suggestions`` open.
        device: what it computes in hardware; a GPU with bfloat16 unless told otherwise.
        variant: ``plain`` prices the step of common notebooks instead of ours.
        traced: where followed steps are kept, such as ``TraceStore(home.cache / "traces")``; without it those that
            come with the package. While there is none for this recipe, the peak is a closed form.

    Raises:
        WorkbenchError: PEFT would refuse the adapter for this model.
    """
    pricing = Pricing(skeleton, device, traced, variant)
    choice = pricing.chooser(free_bytes).choose(recipe)
    step = plan_step(choice.recipe, device, variant)
    peak = pricing.peak(choice.recipe)
    fit = None if free_bytes is None else fit_of(peak, free_bytes)
    misfit = free_bytes is not None and fit != "fits"
    return Estimate(
        model=recipe.model.source,
        skeleton=skeleton,
        choice=choice,
        step=step,
        adapter=_plan(skeleton, LoraSettings.of(recipe.adapter), step.dtypes),
        base=_base(skeleton, step.loaded),
        peak=peak,
        fit=fit,
        suggestions=suggest(choice.recipe, free_bytes, pricing.peak) if misfit and free_bytes is not None else (),
    )


def largest_fit(
    skeleton: Skeleton,
    recipe: Recipe,
    free_bytes: int,
    *,
    device: Device | None = None,
    variant: Variant = "workbench",
    traced: Tracer | None = None,
) -> Largest:
    """The largest micro-batch, record length and rank that fit, each with the other knobs as they are.

    What the recipe leaves open takes the least memory, as it would where the others are that large.
    """
    context = skeleton.root.facts.get("context_length")
    return largest_that_fit(resolved(recipe), free_bytes, Pricing(skeleton, device, traced, variant).peak, context)


@dataclass(frozen=True)
class Pricing:
    """Predicts peaks on one model and one device; the arguments are those of :func:`estimate`."""

    skeleton: Skeleton
    device: Device | None = None
    traced: Tracer | None = None
    variant: Variant = "workbench"

    def peak(self, recipe: ResolvedRecipe) -> Peak:
        """The predicted peak of a recipe.

        Raises:
            WorkbenchError: PEFT would refuse the adapter for this model.
        """
        step = plan_step(recipe, self.device, self.variant)
        plan = _plan(self.skeleton, LoraSettings.of(recipe.adapter), step.dtypes)
        peak = (self.traced or _SHIPPED)(self.skeleton, recipe, step, plan)
        return peak or closed_form_peak(model_shape(self.skeleton), _base(self.skeleton, step.storage), plan, step)

    def base(self, recipe: ResolvedRecipe) -> Footprint:
        """The frozen base of a recipe as it is loaded."""
        return _base(self.skeleton, plan_step(recipe, self.device, self.variant).loaded)

    def chooser(self, free_bytes: int | None, usual_length: int | None = None) -> Chooser:
        """What decides, by these peaks, what a recipe leaves open."""
        return Chooser(self.peak, free_bytes, self.device, usual_length)


_SHIPPED = TraceStore()


# Between two keystrokes most of a recipe stays as it is.
@lru_cache(maxsize=256)
def _plan(skeleton: Skeleton, settings: LoraSettings, dtypes: AdapterDtypes) -> AdapterPlan:
    return plan_adapter(skeleton, settings, dtypes)


@lru_cache(maxsize=256)
def _base(skeleton: Skeleton, storage: Storage) -> Footprint:
    return measure_base(skeleton, storage)
