"""The form's line for ``report_to``: where metrics are logged, and whether that tracker is installed."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from screens.forms.fields import Changes, Option, SettingSpec
from workbench.recipe.trackers import REPORTERS, is_installed

if TYPE_CHECKING:
    from workbench.recipe.schema import Recipe

_PATH = "training.report_to"
_NONE = "none"

# Used at every key, and looked up on disk.
_is_here = cache(is_installed)


def report_setting() -> SettingSpec:
    """Return the setting: the arrows choose one tracker; several are typed, separated by commas."""
    options = [Option(_NONE, {_PATH: []}), *(Option(name, {_PATH: [name]}) for name in REPORTERS)]
    return SettingSpec("log to", _PATH, "cycle", lambda _: options, _value, _parse, _note, lacking=_lacking)


def _value(recipe: Recipe) -> str:
    return ", ".join(recipe.training.report_to) or _NONE


def _parse(text: str) -> Changes:
    names = [name.strip() for name in text.split(",") if name.strip()]
    return {_PATH: [] if names == [_NONE] else names}


def _note(recipe: Recipe) -> str:
    return "not installed" if _missing(recipe) else ""


def _lacking(recipe: Recipe) -> str:
    missing = _missing(recipe)
    return f"Not installed: pip install {' '.join(missing)}." if missing else ""


def _missing(recipe: Recipe) -> list[str]:
    return [name for name in recipe.training.report_to if not _is_here(name)]
