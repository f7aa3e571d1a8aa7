"""The help of a setting: a line below the form, and a full explanation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from screens.forms.row import SettingRow
from screens.forms.sections import SectionHeading
from screens.widgets.plain import plain
from workbench.recipe.problems import allowed_values

if TYPE_CHECKING:
    from textual.widget import Widget

    from screens.forms.fields import SettingSpec
    from workbench.recipe.schema import Recipe


def line_help(line: Widget, recipe: Recipe) -> Content:
    """Return the help of a line of a form: of its setting, or of what a folded section holds."""
    if isinstance(line, SettingRow):
        return help_text(line.spec, recipe)
    return Content.styled(f"Enter shows the settings of {line.title}." if isinstance(line, SectionHeading) else "", "")


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
