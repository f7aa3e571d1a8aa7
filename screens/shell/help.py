"""The help that F1 shows: the guide of the tab in front and its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.table import Table
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from textual.app import ComposeResult
    from textual.binding import ActiveBinding

    from screens.widgets.pane import Pane

_EVERYWHERE = (
    ("1 … 7", "Open a tab. In a text field, and on a number of a form, digits are typed."),
    ("F2 … F8", "Open a tab from anywhere: F2 Models … F8 Runs."),
    ("^p", "Command palette: search all commands by name."),
    ("F1", "This help."),
    ("Tab, Shift+Tab", "Move to the next or previous part of the screen."),
    ("Esc", "Leave a text field or a dialog."),
    ("^q", "Quit. A live run can keep running without the terminal."),
)


class HelpScreen(ModalScreen[None]):
    """The guide of the tab in front, the keys that work in it, and those that work everywhere."""

    DEFAULT_CSS = """
    HelpScreen { align: right top; background: $background 50%; }
    HelpScreen VerticalScroll {
        width: 64; max-width: 100%; height: 1fr; background: $surface; border: round $border; padding: 0 1;
        border-title-style: bold; border-title-color: $foreground; border-subtitle-color: $muted;
    }
    HelpScreen Static { margin-bottom: 1; }
    HelpScreen .heading { text-style: bold; color: $accent; margin-bottom: 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,q,enter", "dismiss", "Close", id="help.close")]

    def __init__(self, pane: Pane | None, keys: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._pane = pane
        self._keys = keys

    def compose(self) -> ComposeResult:
        with VerticalScroll() as box:
            box.border_title = f"Help: {self._pane.NAME}" if self._pane else "Help"
            box.border_subtitle = "Esc close"
            if self._pane:
                yield Static(self._pane.GUIDE, markup=False)
            if self._keys:
                yield Static("Here", classes="heading")
                yield Static(_table(self._keys))
            yield Static("Everywhere", classes="heading")
            yield Static(_table(_EVERYWHERE))


def keys_here(bindings: Iterable[ActiveBinding], show_key: Callable[[Binding], str]) -> list[tuple[str, str]]:
    """Return (keys, what they do) for each action that is available; the keys of one action share a line.

    Args:
        bindings: the active ones, without the app's own.
        show_key: returns how a key is written.
    """
    by_action: dict[str, tuple[list[str], str]] = {}
    for _, binding, enabled, tooltip in bindings:
        # Our own bindings have ids; those of Textual's containers (page left, page right …) would only be noise.
        if enabled and binding.id and binding.description:
            keys, _ = by_action.setdefault(binding.action, ([], tooltip or binding.description))
            if (key := show_key(binding)) not in keys:
                keys.append(key)
    return [(" ".join(keys), text) for keys, text in by_action.values()]


def _table(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for key, text in rows:
        table.add_row(Text(key, style="bold"), Text(text))
    return table
