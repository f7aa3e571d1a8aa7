"""Recipes in which nothing is left to the machine: what is priced, what is run, and what is exported.

Whoever needs a micro-batch or has to know whether activations are recomputed takes a :class:`ResolvedRecipe`, so that
``auto`` cannot be mistaken for a value.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import Field

from workbench.recipe.schema import AUTO, SHORTEST, Recipe, TrainingSection
from workbench.recipe.text import parse_as

CHECKPOINTING = "training.gradient_checkpointing"
MICRO_BATCH = "training.per_device_train_batch_size"
ACCUMULATION = "training.gradient_accumulation_steps"

R = TypeVar("R", bound=Recipe)


class ResolvedTraining(TrainingSection):
    per_device_train_batch_size: int = Field(default=4, ge=1, le=65536)
    gradient_checkpointing: bool = Field(default=True)


class ResolvedRecipe(Recipe):
    """A recipe without ``auto``; otherwise like any other."""

    training: ResolvedTraining = ResolvedTraining()


def is_left_open(recipe: Recipe) -> bool:
    """Whether something in it is left to the machine."""
    return bool(open_keys(recipe.training))


def resolved(recipe: Recipe, chosen: Mapping[str, Any] | None = None) -> ResolvedRecipe:
    """The recipe with what was left open as it was chosen; what was not chosen takes the least memory and trouble.

    Args:
        chosen: by dotted keys; those of values that the recipe states do not count.

    Raises:
        RecipeError: what was chosen is no value that a recipe can have.
    """
    if isinstance(recipe, ResolvedRecipe):
        return recipe
    data, training = recipe.as_dict(), recipe.training
    wanted = {**_least(training), **(chosen or {})}
    for path, value in wanted.items():
        name = path.partition(".")[2]
        if path in open_keys(training):
            data["training"][name] = value
    return parse_as(ResolvedRecipe, data)


def as_fed(recipe: R, longest: int | None) -> R:
    """The recipe as its batches really are: no longer than the longest record. By it a run decides and is priced.

    Args:
        longest: tokens of the longest record; None where it is not known.
    """
    if longest is None or recipe.data.packing or longest >= recipe.data.max_length:
        return recipe
    return at_length(recipe, longest)


def at_length(recipe: R, tokens: int) -> R:
    """The recipe with records of so many tokens, or of the fewest that are allowed."""
    # Copied and not checked anew: the form asks at every key.
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"max_length": max(tokens, SHORTEST)})})


def open_keys(training: TrainingSection) -> tuple[str, ...]:
    """The dotted keys whose values the machine decides, by what fits in memory."""
    checkpointing = (CHECKPOINTING,) if training.gradient_checkpointing == AUTO else ()
    micro_batch = (MICRO_BATCH, ACCUMULATION) if training.per_device_train_batch_size == AUTO else ()
    return checkpointing + micro_batch


def _least(training: TrainingSection) -> dict[str, Any]:
    return {CHECKPOINTING: True, MICRO_BATCH: 1, ACCUMULATION: training.effective_batch}
