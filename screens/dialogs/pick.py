"""A dialog to choose one entry of a list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on
from textual.containers import VerticalGroup
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from screens.dialogs.questions import Dialog
from screens.widgets.plain import plain_content

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult


class PickDialog(Dialog[str]):
    """A list in the middle of the screen; Enter takes the highlighted line.

    Args:
        choices: (value that is returned, label) of each line.
        chosen: the value that is highlighted at first.
    """

    DEFAULT_CSS = """
    PickDialog OptionList, PickDialog OptionList:focus {
        height: auto; max-height: 16; border: none; background: $surface; padding: 0;
    }
    """

    def __init__(self, title: str, choices: Sequence[tuple[str, str]], chosen: str = "") -> None:
        super().__init__()
        self._title = title
        self._choices = tuple(choices)
        self._options = OptionList(*(Option(plain_content(label)) for _, label in self._choices))
        values = [value for value, _ in self._choices]
        self._first = values.index(chosen) if chosen in values else 0

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            box.border_title = plain_content(self._title).markup
            yield self._options

    def on_mount(self) -> None:
        self._options.highlighted = self._first
        self._options.focus()

    @on(OptionList.OptionSelected)
    def _picked(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._choices[event.option_index][0])
