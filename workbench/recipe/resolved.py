"""Recipes without ``auto``: the form in which a recipe is priced, run and exported.

Code that needs a micro-batch size, or needs to know whether activations are recomputed, takes a
:class:`ResolvedRecipe`. The type checker then keeps ``auto`` from being used as a value.
"""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import Field

from workbench.recipe.schema import Recipe
from workbench.recipe.sections.data import MIN_LENGTH
from workbench.recipe.sections.section import AUTO, Offload
from workbench.recipe.sections.training import TrainingSection
from workbench.recipe.text import parse_as

CHECKPOINTING = "training.gradient_checkpointing"
MICRO_BATCH = "training.per_device_train_batch_size"
ACCUMULATION = "training.gradient_accumulation_steps"
DROPOUT = "adapter.lora_dropout"

R = TypeVar("R", bound=Recipe)


class ResolvedTraining(TrainingSection):
    """The training section with its ``auto`` values filled in."""

    per_device_train_batch_size: int = Field(default=4, ge=1, le=65536)
    gradient_checkpointing: bool | Offload = Field(default=True)


class ResolvedRecipe(Recipe):
    """A recipe in which no setting is ``auto``."""

    training: ResolvedTraining = ResolvedTraining()


def has_auto(recipe: Recipe) -> bool:
    """Whether any setting of the recipe is ``auto``."""
    return bool(auto_keys(recipe.training))


def auto_keys(training: TrainingSection) -> tuple[str, ...]:
    """The dotted keys whose values the machine chooses by what fits in memory."""
    checkpointing = (CHECKPOINTING,) if training.gradient_checkpointing == AUTO else ()
    micro_batch = (MICRO_BATCH, ACCUMULATION) if training.per_device_train_batch_size == AUTO else ()
    return checkpointing + micro_batch


def resolved(recipe: Recipe, chosen: Mapping[str, object] | None = None) -> ResolvedRecipe:
    """Replace each ``auto`` of a recipe by its value in ``chosen``, or else by the value that needs least memory.

    Args:
        chosen: values by dotted key. Keys that are not ``auto`` in the recipe are ignored, but for a ``lora_dropout``
            that has not been set.

    Raises:
        RecipeError: a chosen value is not allowed in a recipe.
    """
    if isinstance(recipe, ResolvedRecipe):
        return recipe
    data, training = recipe.as_dict(), recipe.training
    for path, value in {**_least_memory(recipe), **(chosen or {})}.items():
        if path in auto_keys(training):
            data["training"][path.partition(".")[2]] = value
        elif path == DROPOUT and recipe.adapter.dropout_is_default:
            data["adapter"]["lora_dropout"] = value
    return parse_as(ResolvedRecipe, data)


def with_max_length(recipe: R, tokens: int) -> R:
    """Set ``max_length`` to ``tokens``, or to the smallest value allowed."""
    # Copied without validation, because the form calls this on every key.
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"max_length": max(tokens, MIN_LENGTH)})})


def _least_memory(recipe: Recipe) -> dict[str, object]:
    size, effective = recipe.least_micro_batch, recipe.training.effective_batch
    return {CHECKPOINTING: True, MICRO_BATCH: size, ACCUMULATION: effective // size}
