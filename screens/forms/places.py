"""Where each setting of the recipe is edited."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from workbench.recipe.fields import setting_of
from workbench.recipe.schema import known_paths

if TYPE_CHECKING:
    from workbench.recipe.fields import Setting

_OWN_PLACES = {"model.source": "models"}


def tab_of(path: str) -> str:
    """Return the id of the tab with the field of a dotted key: Data for its section, Adapter for the others.

    ``model.source`` has no field: it is chosen on Models.
    """
    return _OWN_PLACES.get(path) or ("data" if path.startswith("data.") else "adapter")


@cache
def all_settings() -> tuple[Setting, ...]:
    """Return every setting of the recipe, in order."""
    return tuple(map(setting_of, known_paths()))
