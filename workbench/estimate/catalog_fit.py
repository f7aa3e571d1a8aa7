"""Predicts the memory of one recipe on each model of the catalog, to show which of them a device can train."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.estimate.adapter.settled import changes_needed
from workbench.estimate.by_method import peaks_by_method
from workbench.estimate.peak import Peak
from workbench.estimate.pricing import Pricing, Tracer
from workbench.estimate.setup import Setup
from workbench.machine.memory_budget import MemoryBudget
from workbench.models.catalog import catalog, catalog_skeleton
from workbench.models.skeleton import Skeleton
from workbench.models.stored_quantization import recipe_as_loaded, stored_quantization
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.section import AUTO
from workbench.recipe.sections.training import CHECKPOINTING_TEXTS


@dataclass(frozen=True)
class CatalogFit:
    """The peaks of a recipe on one model.

    Attributes:
        source: the model's id. parameters: all of them, the adapter's left out.
        changes: what must change in the recipe to train this model: settings of the adapter that PEFT would refuse, and
            a quantization that the model's files rule out. Empty if no change is known to help.
        peaks: the peak with each of :data:`~workbench.estimate.by_method.METHODS` that the model allows; empty if no
            change is known to help.
    """

    source: str
    parameters: int
    changes: Mapping[str, Any]
    peaks: Mapping[str, Peak]


def catalog_fits(
    recipe: Recipe, budget: MemoryBudget, traced: Tracer | None = None, sources: Iterable[str] | None = None
) -> Iterator[CatalogFit]:
    """Predict the memory of a recipe on each model of the catalog, or on those in ``sources``; some ms per model.

    Settings on ``auto`` are resolved for each model, by what fits into the budget.

    Args:
        traced: looks up the peaks of training steps that were traced before.
    """
    for source in sources if sources is not None else (entry.id for entry in catalog()):
        skeleton = catalog_skeleton(source)
        if skeleton is None:
            continue
        setup, changes = setup_and_changes(skeleton, recipe)
        peaks: Mapping[str, Peak] = {}
        if changes is not None:
            peaks = peaks_by_method(Pricing(skeleton, budget.device, traced), setup.varied(changes), budget)
        yield CatalogFit(source, skeleton.parameters, changes or {}, peaks)


def setup_and_changes(skeleton: Skeleton, recipe: Recipe) -> tuple[Setup, Mapping[str, Any] | None]:
    """The setup of a recipe on a model, and the changes that it needs there; None if no change is known to help.

    If the model's files are quantized, the setup has the quantization that they are loaded with. If they cannot be
    trained as stored, the changes set ``quantization.method`` to ``none``, which dequantizes them.
    """
    stored = stored_quantization(skeleton.config)
    setup = Setup.of(recipe_as_loaded(recipe, skeleton.config), stored=stored)
    changes = changes_needed(skeleton, recipe)
    if changes is not None and stored is not None and stored.is_dequantized and recipe.quantization.method != "none":
        changes = {"quantization.method": "none", **changes}
    return setup, changes


def settings_text(recipe: Recipe) -> tuple[str, ...]:
    """The settings that the fits are for, as text: ``4 × 1024 tokens``, ``checkpointing on``, ``adamw_8bit``."""
    training = recipe.training
    checkpointing = {**CHECKPOINTING_TEXTS, AUTO: "checkpointing if needed"}[training.gradient_checkpointing]
    batch = training.per_device_train_batch_size
    size = f"up to {training.effective_batch}" if batch == AUTO else str(batch)
    return f"{size} × {recipe.data.max_length} tokens", checkpointing, training.optim
