"""The form's line for ``optim``: the arrows offer what is installed, and the help names what is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from screens.forms.fields import Option, SettingSpec, choice_setting
from workbench.recipe.optimizers import lacking_package, usable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.models.skeleton import Skeleton
    from workbench.recipe.schema import Recipe

_PATH = "training.optim"


def optimizer_setting() -> SettingSpec:
    """Return the setting, with every optimizer whose package is installed."""

    def options(_: Skeleton | None) -> Sequence[Option]:
        return [Option(name, {_PATH: name}) for name in usable() if lacking_package(name) is None]

    setting = choice_setting(_PATH, "optimizer", shape="cycle")
    return replace(setting, options=options, note=_note, lacking=_lacking)


def _note(recipe: Recipe) -> str:
    if lacking_package(recipe.training.optim):
        return "not installed"
    return "trains B only" if recipe.training.trains_b_only else ""


def _lacking(recipe: Recipe) -> str:
    package = lacking_package(recipe.training.optim)
    return "" if package is None else f"Not installed: pip install {package.distribution}."
