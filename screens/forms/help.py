"""The help of a setting: a line below the form, and a full explanation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from screens.widgets.plain import plain
from workbench.recipe.text import allowed_values

if TYPE_CHECKING:
    from screens.forms.fields import SettingSpec
    from workbench.recipe.schema import Recipe


def help_text(spec: SettingSpec, recipe: Recipe) -> Content:
    """Return the key, what has to be installed for its value, and what it does."""
    setting, lacking = spec.setting, spec.lacking(recipe)
    text = setting.help + (f" Higher: {setting.up}." if setting.up else "")
    return Content.assemble(
        (f"{setting.path}  ", "bold $accent"), (f"{plain(lacking)} " if lacking else "", "$warning"), (plain(text), "")
    )


def explanation(spec: SettingSpec, recipe: Recipe) -> str:
    """Return all that is known of a setting, with its allowed values."""
    setting = spec.setting
    parts = [
        spec.lacking(recipe),
        setting.help,
        f"Higher: {setting.up}." if setting.up else "",
        f"Allowed: {allowed_values(setting.path)}.",
    ]
    return "\n\n".join(part for part in parts if part)
