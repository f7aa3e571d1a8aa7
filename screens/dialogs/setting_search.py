"""Dialogs over the recipe's settings: find one by its name or its help, choose one of its values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from screens.dialogs.pick import PickDialog
from screens.dialogs.search_dialog import Entry, SearchDialog
from screens.forms.places import all_settings
from screens.widgets.plain import plain

if TYPE_CHECKING:
    from screens.forms.row import SettingRow


def find_setting_dialog() -> SearchDialog:
    """Return a dialog that answers with the dotted key of a setting."""
    entries = [
        Entry(setting.path, setting.path, plain(setting.help), setting.name.replace("_", " "))
        for setting in all_settings()
    ]
    return SearchDialog("Find a setting", entries, "Name or help, such as rank or checkpoint")


def values_dialog(row: SettingRow) -> PickDialog:
    """Return a dialog that answers with the number of one of the values of a row."""
    labels, here = row.choices
    choices = [(str(index), label) for index, label in enumerate(labels)]
    return PickDialog(row.spec.label, choices, str(here))
