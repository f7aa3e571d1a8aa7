"""The help that F1 shows: the guide and the keys of the dialog or tab in front."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from rich.table import Table
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from screens.widgets.key_texts import keyed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from textual.app import ComposeResult
    from textual.binding import ActiveBinding
    from textual.screen import Screen

    from screens.widgets.pane import Pane


class Key(NamedTuple):
    """The keys of an action, its name as in the footer, and what it does."""

    keys: str
    name: str
    text: str


_EVERYWHERE = (
    Key("{tab.models} … {tab.runs}", "", "Open a tab. In a text field, and on a number of a form, digits are typed."),
    Key("F2 … F8", "", "Open a tab from anywhere: F2 Models … F8 Runs."),
    Key("^p", "", "Command palette: search all commands by name."),
    Key("{app.help}", "", "This help."),
    Key("{app.settings}", "", "Settings: theme, keys, notification, limits."),
    Key("{app.jobs}", "", "Jobs: what runs in the background, how far it is, its result."),
    Key("Tab, Shift+Tab", "", "Move to the next or previous part of the screen."),
    Key("Esc", "", "Leave a text field, then clear the filter, then go back to the list or form. Close a dialog."),
    Key("{app.undo}, {app.redo}", "", "Undo a change of the recipe. Redo it."),
    Key("{app.recipe_text}", "", "The recipe as YAML: edit it, or compare it with a preset or a run."),
    Key("{app.quit}", "", "Quit. A live run can keep running without the terminal."),
)


class HelpScreen(ModalScreen[None]):
    """The guide of a tab or dialog, the keys that work in it, and those that work everywhere.

    Args:
        name: of the tab or dialog.
        keys: see :func:`keys_here`.
    """

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

    def __init__(self, name: str, guide: str, keys: Sequence[Key]) -> None:
        super().__init__()
        self._name = name
        self._guide = guide
        self._keys = keys

    def compose(self) -> ComposeResult:
        with VerticalScroll() as box:
            box.border_title = f"Help: {self._name}" if self._name else "Help"
            box.border_subtitle = "Esc close"
            if self._guide:
                yield Static(keyed(self._guide), markup=False)
            if self._keys:
                yield Static("Here", classes="heading")
                yield Static(_table(self._keys))
            yield Static("Everywhere", classes="heading")
            yield Static(_table([row._replace(keys=keyed(row.keys)) for row in _EVERYWHERE]))


def help_on(screen: Screen[Any], pane: Pane | None, show_key: Callable[[Binding], str]) -> HelpScreen:
    """Return the help on the dialog in front, or on the tab if there is none.

    Args:
        show_key: returns how a key is written.
    """
    place = screen if screen.is_modal else pane
    elsewhere = (screen.app,) if screen.is_modal else (screen.app, screen)
    active = [entry for entry in screen.active_bindings.values() if entry.node not in elsewhere]
    return HelpScreen(getattr(place, "NAME", ""), getattr(place, "GUIDE", ""), keys_here(active, show_key))


def keys_here(bindings: Iterable[ActiveBinding], show_key: Callable[[Binding], str]) -> list[Key]:
    """Return the keys, the name and the explanation of each action that is available.

    The keys of one action share a line.
    """
    by_action: dict[str, tuple[list[str], str, str]] = {}
    for _, binding, enabled, tooltip in bindings:
        # Our own bindings have ids; those of Textual's containers (page left, page right …) would only be noise.
        if enabled and binding.id and binding.description:
            keys, *_ = by_action.setdefault(binding.action, ([], binding.description, tooltip))
            if (shown := show_key(binding)) not in keys:
                keys.append(shown)
    return [Key(" ".join(keys), name, text) for keys, name, text in by_action.values()]


def _table(rows: Sequence[Key]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for row in rows:
        words = (row.name, ". " if row.name and row.text else "", (row.text, "dim" if row.name else ""))
        table.add_row(Text(row.keys, style="bold"), Text.assemble(*words))
    return table
