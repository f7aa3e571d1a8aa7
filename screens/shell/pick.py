"""Choose one of a list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on
from textual.containers import VerticalGroup
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from screens.shell.dialogs import Dialog
from screens.widgets.plain import plain_content

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult


class PickDialog(Dialog[str]):
    """A list in the middle of the screen; Enter takes the selected line.

    Args:
        choices: (value that comes back, words).
        chosen: the value selected at first.
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
        self._chosen = chosen

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            box.border_title = plain_content(self._title).markup
            yield OptionList(*(Option(plain_content(words)) for _, words in self._choices))

    def on_mount(self) -> None:
        values = [value for value, _ in self._choices]
        options = self.query_one(OptionList)
        options.highlighted = values.index(self._chosen) if self._chosen in values else 0
        options.focus()

    @on(OptionList.OptionSelected)
    def _picked(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._choices[event.option_index][0])
