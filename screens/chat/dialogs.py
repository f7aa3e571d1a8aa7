"""Chat's dialogs: saved conversations, and what to compare side by side."""

from __future__ import annotations

from time import localtime, strftime
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import VerticalGroup
from textual.content import Content
from textual.widgets import OptionList, SelectionList, Static
from textual.widgets.option_list import Option

from screens.dialogs.questions import Dialog
from screens.widgets.glyphs import ENTER
from screens.widgets.plain import plain, plain_content

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from workbench.engine.client.conversations import Conversation

OPEN, RENAME, REMOVE = "open", "rename", "remove"
MOST_COLUMNS = 3

_LIST = """
ConversationsDialog OptionList, ColumnsDialog SelectionList, ColumnsDialog SelectionList:focus,
ConversationsDialog OptionList:focus { height: auto; max-height: 14; border: none; background: $surface; padding: 0; }
ConversationsDialog .keys, ColumnsDialog .keys { color: $text-muted; margin-top: 1; height: auto; }
ColumnsDialog .problem { color: $error; height: auto; }
"""


class ConversationsDialog(Dialog[tuple[str, str]]):
    """The conversations of a run or model; returns what to do and the id of the conversation."""

    DEFAULT_CSS = _LIST
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("N", "take('rename')", "Rename", id="conversations.rename"),
        Binding("d,delete", "take('remove')", "Remove", id="conversations.remove"),
    ]

    def __init__(self, conversations: Sequence[Conversation], current: str) -> None:
        super().__init__()
        self._conversations = tuple(conversations)
        self._current = current
        self._list = OptionList(*(Option(_words(one)) for one in self._conversations))

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            box.border_title = "Conversations"
            yield self._list
            yield Static(f"{ENTER} open   N rename   d remove   Esc back", classes="keys", markup=False)

    def on_mount(self) -> None:
        ids = [one.id for one in self._conversations]
        self._list.highlighted = ids.index(self._current) if self._current in ids else 0
        self._list.focus()

    @on(OptionList.OptionSelected)
    def _opened(self, event: OptionList.OptionSelected) -> None:
        self.dismiss((OPEN, self._conversations[event.option_index].id))

    def action_take(self, what: str) -> None:
        """Return the highlighted conversation with what to do with it."""
        index = self._list.highlighted
        if index is not None:
            self.dismiss((what, self._conversations[index].id))


class ColumnsDialog(Dialog[list[str]]):
    """Selects one to three targets to compare; returns their values in the order of the list."""

    DEFAULT_CSS = _LIST
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "done", "Done", priority=True, id="columns.done"),
    ]

    def __init__(self, choices: Sequence[tuple[str, str]], chosen: Sequence[str]) -> None:
        super().__init__()
        self._choices = tuple(choices)
        self._list = SelectionList(*((plain_content(label), value, value in chosen) for value, label in choices))
        self._problem = Static("", classes="problem", markup=False)

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            box.border_title = "Choose what to compare side by side"
            yield self._list
            yield Static(f"Space selects up to {MOST_COLUMNS}   {ENTER} done   Esc back", classes="keys", markup=False)
            yield self._problem

    def on_mount(self) -> None:
        self._list.focus()

    def action_done(self) -> None:
        """Return the selected targets."""
        marked = self._list.selected
        if 1 <= len(marked) <= MOST_COLUMNS:
            self.dismiss([value for value, _ in self._choices if value in marked])
        else:
            self._problem.update(f"Select 1 to {MOST_COLUMNS}; {len(marked)} selected.")


def _words(conversation: Conversation) -> Content:
    turns = len(conversation.turns)
    return Content.assemble(
        plain(conversation.name),
        (
            f"  {turns} turn{'' if turns == 1 else 's'}, {strftime('%d %b %H:%M', localtime(conversation.changed))}",
            "$foreground 70%",
        ),
    )
