"""One recipe on many models: which of them a device can train, on which base."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.errors import WorkbenchError
from workbench.estimate import Device, Pricing, Tracer
from workbench.estimate.adapter.suggested_fix import suggested_fix
from workbench.estimate.peak import Peak, on_device
from workbench.models.catalog import catalog, catalog_skeleton
from workbench.models.skeleton import Skeleton
from workbench.recipe.schema import AUTO, Recipe
from workbench.recipe.text import edit

METHODS: Mapping[str, Mapping[str, Any]] = {
    "16-bit LoRA": {"quantization.method": "none"},
    "int8": {"quantization.method": "int8"},
    "QLoRA": {"quantization.method": "nf4"},
}
"""The bases that are set side by side."""


@dataclass(frozen=True)
class CatalogFit:
    """What a recipe takes on one model.

    Attributes:
        changes: what had to be changed for PEFT to accept the adapter on this model.
        peaks: by the names of :data:`METHODS`, where the settings are not refused.
    """

    source: str
    parameters: int
    changes: Mapping[str, Any]
    peaks: Mapping[str, Peak]


def catalog_fits(
    recipe: Recipe,
    device: Device,
    traced: Tracer | None = None,
    sources: Iterable[str] | None = None,
    free_bytes: int | None = None,
) -> Iterator[CatalogFit]:
    """Price a recipe on each model of the catalog, or on those of ``sources`` that it holds; some ms a model.

    What the recipe leaves open is decided for each model, by what fits into ``free_bytes``.
    """
    for source in sources if sources is not None else (entry.id for entry in catalog()):
        skeleton = catalog_skeleton(source)
        if skeleton is not None:
            changes = suggested_fix(skeleton, recipe)
            peaks = {} if changes is None else by_method(skeleton, edit(recipe, changes), device, traced, free_bytes)
            yield CatalogFit(source, skeleton.parameters, changes or {}, peaks)


def settings_words(recipe: Recipe) -> tuple[str, ...]:
    """What of a recipe decides its peak: ``4 × 1024 tokens``, ``checkpointing on``, ``adamw_8bit``."""
    training = recipe.training
    checkpointing = {True: "on", False: "off", AUTO: "if needed"}[training.gradient_checkpointing]
    batch = training.per_device_train_batch_size
    size = f"up to {training.effective_batch}" if batch == AUTO else str(batch)
    return f"{size} × {recipe.data.max_length} tokens", f"checkpointing {checkpointing}", training.optim


def by_method(
    skeleton: Skeleton, recipe: Recipe, device: Device, traced: Tracer | None = None, free_bytes: int | None = None
) -> Mapping[str, Peak]:
    """Peaks of the same settings on a 16-bit, an int8 and an nf4 base, where they are not refused."""
    peaks = {name: peak_of(skeleton, recipe, device, traced, changes, free_bytes) for name, changes in METHODS.items()}
    return {name: peak for name, peak in peaks.items() if peak is not None}


def peak_of(
    skeleton: Skeleton,
    recipe: Recipe,
    device: Device,
    traced: Tracer | None = None,
    changes: Mapping[str, Any] | None = None,
    free_bytes: int | None = None,
) -> Peak | None:
    """The predicted peak of a recipe, changed or not; None where the settings are refused for this model."""
    try:
        priced = Pricing(skeleton, device, traced)
        choice = priced.chooser(free_bytes).choose(edit(recipe, changes or {}))
        return on_device(device, priced.peak(choice.recipe))
    except WorkbenchError:
        return None
