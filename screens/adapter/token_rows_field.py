"""The form's line for ``resize_embeddings``: how many rows the tokenizer adds, and the parameters that they train."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from screens.forms.fields import SettingSpec, switch_setting
from workbench.adapters.settings import AdapterSettings
from workbench.estimate.adapter.new_rows import new_row_parameters

if TYPE_CHECKING:
    from workbench.models.skeleton import Skeleton
    from workbench.recipe.schema import Recipe


def token_rows_setting() -> SettingSpec:
    """Return the setting: whether rows are added to the embeddings for tokens that have none."""
    return replace(switch_setting("model.resize_embeddings", "add token rows"), tree_note=_note)


def _note(recipe: Recipe, skeleton: Skeleton) -> str:
    rows = skeleton.root.facts.get("new_tokens")
    # The tree that was read for the recipe before this one says nothing of added rows.
    if rows is None or not recipe.model.resize_embeddings:
        return ""
    if not rows:
        return "no rows to add: each token has one"
    count = new_row_parameters(skeleton, AdapterSettings.of(recipe.adapter))
    return f"{rows:,} {'row' if rows == 1 else 'rows'}, {count:,} trainable parameters"
