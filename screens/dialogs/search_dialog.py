"""A dialog to find one entry of a long list by typing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import VerticalGroup
from textual.content import Content
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from screens.dialogs.questions import Dialog
from screens.widgets.glyphs import ENTER
from screens.widgets.plain import plain_content

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

_MOST = 200
"""Entries that are listed at once."""


@dataclass(frozen=True)
class Entry:
    """A line of the list.

    Attributes:
        value: what is returned.
        label, note: what is shown; the note is dim.
        words: what else it is found by, such as an explanation.
    """

    value: str
    label: str
    note: str = ""
    words: str = ""


def found(entries: Sequence[Entry], typed: str) -> list[Entry]:
    """Return the entries with all typed words: first by label, then those with the words side by side."""
    words = typed.casefold().split()
    ranked: list[tuple[int, int, Entry]] = []
    for number, entry in enumerate(entries):
        label = entry.label.casefold()
        text = f"{label} {entry.value} {entry.note} {entry.words}".casefold()
        if all(word in text for word in words):
            in_label = all(word in label for word in words)
            rank = 0 if words and label.startswith(words[0]) else 1 if in_label else 2 if " ".join(words) in text else 3
            ranked.append((rank if words else 0, number, entry))
    return [entry for _, _, entry in sorted(ranked, key=lambda one: one[:2])]


class SearchDialog(Dialog[str]):
    """A text field over a list; the arrows move in the list, Enter takes the highlighted entry."""

    DEFAULT_CSS = """
    SearchDialog > VerticalGroup { width: 92; }
    SearchDialog OptionList, SearchDialog OptionList:focus {
        height: auto; max-height: 16; border: none; background: $surface; padding: 0; margin-top: 1;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "take", "Choose", key_display=ENTER, priority=True, id="search_dialog.take"),
        Binding("down", "walk('cursor_down')", "Next", show=False, priority=True),
        Binding("up", "walk('cursor_up')", "Previous", show=False, priority=True),
        Binding("pagedown", "walk('page_down')", "Next page", show=False, priority=True),
        Binding("pageup", "walk('page_up')", "Previous page", show=False, priority=True),
    ]

    def __init__(self, title: str, entries: Sequence[Entry], placeholder: str) -> None:
        super().__init__()
        self._title = title
        self._entries = entries
        self._shown: list[Entry] = []
        self._width = max((len(entry.label) for entry in entries), default=0)
        self._field = Input(placeholder=placeholder, compact=True)
        self._list = OptionList()
        self._list.can_focus = False

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            box.border_title = plain_content(self._title).markup
            yield self._field
            yield self._list

    def on_mount(self) -> None:
        self._show("")
        self._field.focus()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._show(event.value)

    def _show(self, typed: str) -> None:
        self._shown = found(self._entries, typed)[:_MOST]
        lines = [
            Content.assemble(plain_content(f"{entry.label:{self._width}}  "), plain_content(entry.note, "$muted"))
            for entry in self._shown
        ]
        self._list.set_options(Option(line) for line in lines)
        self._list.highlighted = 0 if self._shown else None

    def action_walk(self, action: str) -> None:
        """Move in the list."""
        getattr(self._list, f"action_{action}")()

    def action_take(self) -> None:
        """Close with the highlighted entry."""
        # What was typed just before Enter may not have been told yet.
        self._show_if_behind()
        if (here := self._list.highlighted) is not None:
            self.dismiss(self._shown[here].value)

    def _show_if_behind(self) -> None:
        newest = found(self._entries, self._field.value)[:_MOST]
        if newest != self._shown:
            self._show(self._field.value)

    @on(OptionList.OptionSelected)
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._shown[event.option_index].value)
