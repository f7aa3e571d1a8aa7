"""Whether a model fits this machine under the present recipe, as a word, a color and a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workbench.units import gib

if TYPE_CHECKING:
    from workbench.estimate import Tracer
    from workbench.estimate.peak import Peak
    from workbench.machine.memory_budget import MemoryBudget
    from workbench.recipe.schema import Recipe


@dataclass(frozen=True)
class Fit:
    """``word`` is fits, tight or no; ``color`` the theme's name of its color, which never stands alone.

    ``needs`` and ``free`` are bytes; None if nothing can be predicted.
    """

    word: str
    color: str
    sentence: str
    needs: int | None = None
    free: int | None = None

    @property
    def phrase(self) -> str:
        return {"no": "does not fit"}.get(self.word, self.word)


def judge(peak: Peak, free_bytes: int) -> Fit:
    """What a predicted peak means for the memory that is free."""
    from workbench.estimate.fit import fit_of

    need, free = gib(peak.device_bytes), gib(free_bytes)
    match fit_of(peak, free_bytes):
        case "fits":
            return Fit("fits", "success", f"Fits: needs {need} of {free} free.", peak.device_bytes, free_bytes)
        case "tight":
            return Fit("tight", "warning", f"Tight: needs {need} of {free} free.", peak.device_bytes, free_bytes)
        case _:
            return Fit("no", "error", f"Does not fit: needs {need}, only {free} free.", peak.device_bytes, free_bytes)


def fits_of(
    sources: Iterable[str], recipe: Recipe, budget: MemoryBudget, traced: Tracer | None = None
) -> dict[str, Fit]:
    """The models whose module tree is known, judged under one recipe; costs some milliseconds a model."""
    from workbench.estimate.adapter.suggested_fix import changes_text
    from workbench.estimate.by_method import peak_with
    from workbench.estimate.catalog_fit import setup_and_changes
    from workbench.estimate.pricing import Pricing
    from workbench.models.catalog import catalog_skeleton

    found: dict[str, Fit] = {}
    if budget.free_bytes is None:
        return found
    for source in sources:
        skeleton = catalog_skeleton(source)
        if skeleton is None:
            continue
        setup, changes = setup_and_changes(skeleton, recipe)
        pricing = Pricing(skeleton, budget.device, traced)
        peak = None if changes is None else peak_with(pricing, setup, budget, changes)
        fit = judge(peak, budget.free_bytes) if peak is not None else _REFUSED
        if changes and peak is not None:
            fit = replace(fit, sentence=f"{fit.sentence.removesuffix('.')}, with {changes_text(changes)}.")
        found[source] = fit
    return found


_REFUSED = Fit("no", "error", "The adapter settings do not work with this model. See Adapter.")
