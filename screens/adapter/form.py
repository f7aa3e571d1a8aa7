"""The form of the Adapter tab: its settings in groups."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from textual.widgets import Label

from screens.adapter.fields import form
from screens.forms.form import SettingForm
from screens.forms.row import SettingRow

if TYPE_CHECKING:
    from textual.app import ComposeResult


class AdapterForm(SettingForm):
    """The settings in groups, each under a heading."""

    def __init__(self) -> None:
        groups = [
            (group.title, [SettingRow(spec, id=_id_of(spec.label)) for spec in group.settings]) for group in form()
        ]
        super().__init__(row for _, rows in groups for row in rows)
        self._groups = groups

    def compose(self) -> ComposeResult:
        for number, (title, rows) in enumerate(self._groups):
            yield Label(title, classes="group" if number else "group first")
            yield from rows


def _id_of(label: str) -> str:
    """Turn a label into an id, which may not contain signs such as ×, blanks and dots."""
    return re.sub(r"[^A-Za-z0-9]+", "-", label).strip("-")
