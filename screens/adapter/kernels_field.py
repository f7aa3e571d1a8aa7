"""The form's line for ``kernels``: the source of fused kernels, and whether it is installed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from screens.forms.fields import SettingSpec, choice_setting
from workbench.recipe.fused_kernels import PACKAGES, is_installed

if TYPE_CHECKING:
    from workbench.recipe.schema import Recipe

# Used at every key, and looked up on disk.
_is_here = cache(is_installed)


def kernels_setting() -> SettingSpec:
    """Return the setting: no fused kernels, Liger's, or those of the hub."""
    words = {"none": "none", "liger": "Liger", "hub": "hub"}
    return replace(choice_setting("training.kernels", "kernels", words), note=_note, lacking=_lacking)


def _note(recipe: Recipe) -> str:
    if _lacking(recipe):
        return "not installed"
    return "runs code from the hub" if recipe.training.kernels == "hub" else ""


def _lacking(recipe: Recipe) -> str:
    kernels = recipe.training.kernels
    return "" if kernels == "none" or _is_here(kernels) else f"Not installed: pip install {PACKAGES[kernels][0]}."
