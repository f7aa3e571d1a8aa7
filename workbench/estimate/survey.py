"""One recipe on many models: which of them a device can train, on which base."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from workbench.errors import WorkbenchError
from workbench.estimate import Device, Tracer, estimate
from workbench.estimate.mend import mend
from workbench.estimate.peak import Peak
from workbench.models.catalog import catalog, catalog_skeleton
from workbench.models.skeleton import Skeleton
from workbench.recipe import Recipe
from workbench.recipe_text import edit

METHODS: Mapping[str, Mapping[str, Any]] = {
    "LoRA-16": {"quantization.method": "none"},
    "int8": {"quantization.method": "int8"},
    "QLoRA": {"quantization.method": "nf4"},
}
"""The bases that are set side by side."""


@dataclass(frozen=True)
class SurveyRow:
    """What a recipe takes on one model.

    Attributes:
        changes: what had to be changed for PEFT to accept the adapter on this model.
        peaks: by the names of :data:`METHODS`, where the settings are not refused.
    """

    source: str
    parameters: int
    changes: Mapping[str, Any]
    peaks: Mapping[str, Peak]


def survey(
    recipe: Recipe, device: Device, traced: Tracer | None = None, sources: Iterable[str] | None = None
) -> Iterator[SurveyRow]:
    """Price a recipe on each model of the catalog, or on those of ``sources`` that it holds; some ms a model."""
    for source in sources if sources is not None else (entry.id for entry in catalog()):
        skeleton = catalog_skeleton(source)
        if skeleton is not None:
            changes = mend(skeleton, recipe)
            peaks = {} if changes is None else by_method(skeleton, edit(recipe, changes), device, traced)
            yield SurveyRow(source, skeleton.parameters, changes or {}, peaks)


def by_method(skeleton: Skeleton, recipe: Recipe, device: Device, traced: Tracer | None = None) -> Mapping[str, Peak]:
    """Peaks of the same settings on a 16-bit, an int8 and an nf4 base, where they are not refused."""
    peaks = {name: peak_of(skeleton, recipe, device, traced, changes) for name, changes in METHODS.items()}
    return {name: peak for name, peak in peaks.items() if peak is not None}


def peak_of(
    skeleton: Skeleton,
    recipe: Recipe,
    device: Device,
    traced: Tracer | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Peak | None:
    """The predicted peak of a recipe, changed or not; None where the settings are refused for this model."""
    try:
        return on_device(device, estimate(skeleton, edit(recipe, changes or {}), device=device, traced=traced).peak)
    except WorkbenchError:
        return None


def on_device(device: Device, peak: Peak) -> Peak:
    """A processor has neither a driver's context nor an allocator that holds memory back."""
    if device.kind == "cuda":
        return peak
    return replace(peak, reserved_bytes=peak.allocated_bytes, terms={**peak.terms, "cuda_context": 0})
