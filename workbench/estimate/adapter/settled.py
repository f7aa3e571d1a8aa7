"""Settles the dropout of an adapter that cannot have any, where the recipe leaves it at its default."""

from workbench.adapters.settings import AdapterSettings
from workbench.errors import WorkbenchError
from workbench.estimate.adapter.plan import plan_adapter
from workbench.estimate.adapter.suggested_fix import Changes, suggested_fix
from workbench.models.skeleton import Skeleton
from workbench.recipe.resolved import DROPOUT
from workbench.recipe.schema import Recipe
from workbench.recipe.text import R, edit

NO_DROPOUT = (
    "lora_dropout is 0: the experts of this model are stored as one weight, on which PEFT supports no dropout. "
    "Target the attention only to train with dropout."
)


def without_impossible_dropout(skeleton: Skeleton, recipe: R) -> R:
    """The recipe, with ``lora_dropout`` 0 where its default would make PEFT refuse the adapter for this model."""
    if not recipe.adapter.dropout_is_default or not recipe.adapter.lora_dropout:
        return recipe
    if skeleton.root.facts.get("moe_names") is None:  # PEFT then adapts no experts that are stored as one weight
        return recipe
    try:
        dropout = plan_adapter(skeleton, recipe.adapter).dropout
    except WorkbenchError:  # the adapter is refused for another reason, which its plan says
        return recipe
    return recipe if dropout else edit(recipe, {DROPOUT: 0.0})


def changes_needed(skeleton: Skeleton, recipe: Recipe) -> Changes | None:
    """What differs from a recipe when its adapter is used on a model: the smallest fix, and a dropped default dropout.

    Returns:
        None where PEFT refuses the adapter and no change is known to help.
    """
    changes = suggested_fix(skeleton, AdapterSettings.of(recipe.adapter))
    if changes is None or without_impossible_dropout(skeleton, recipe) is recipe:
        return changes
    return {DROPOUT: 0.0, **changes}


def dropout_notice(recipe: Recipe, priced: Recipe) -> str:
    """A sentence if the default dropout was dropped, else nothing."""
    return NO_DROPOUT if recipe.adapter.lora_dropout != priced.adapter.lora_dropout else ""
