"""The dialog that chooses the columns of the history."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalGroup
from textual.widgets import SelectionList, Static
from textual.widgets.selection_list import Selection

from screens.dialogs.questions import Dialog
from screens.widgets.glyphs import ENTER
from screens.widgets.plain import plain_content

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

_ABOUT = "Those that do not fit the terminal drop out from the right. With none selected the workbench chooses."


class RunColumnsDialog(Dialog[list[str]]):
    """A check box for each column; returns the names of the selected ones in the order of the list.

    Args:
        columns: all names.
        shown: those that are selected at first.
    """

    DEFAULT_CSS = """
    RunColumnsDialog SelectionList, RunColumnsDialog SelectionList:focus {
        height: auto; max-height: 16; border: none; background: $surface; padding: 0; margin: 1 0;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "take", "Use these", id="columns.take", priority=True),
        Binding("up", "cursor(-1)", show=False, priority=True),
        Binding("down", "cursor(1)", show=False, priority=True),
    ]

    def __init__(self, columns: Sequence[str], shown: Sequence[str]) -> None:
        super().__init__()
        self._columns = tuple(columns)
        self._list = SelectionList[str](*(Selection(name, name, name in shown) for name in columns))

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            box.border_title = "Columns"
            yield Static(plain_content(_ABOUT, lines=True))
            yield self._list
            yield Static(f"Space select   {ENTER} use these   Esc back", classes="keys", markup=False)

    def on_mount(self) -> None:
        self._list.focus()

    def action_cursor(self, by: int) -> None:
        """Go up or down in the list."""
        self._list.action_cursor_down() if by > 0 else self._list.action_cursor_up()

    def action_take(self) -> None:
        """Return the selected columns."""
        selected = set(self._list.selected)
        self.dismiss([name for name in self._columns if name in selected])
