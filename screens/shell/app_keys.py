"""The keys that every tab has."""

from __future__ import annotations

from typing import Final

from textual.binding import Binding, BindingType

from screens.tabs import TABS
from screens.widgets.key_texts import register

KEYS: Final[list[BindingType]] = [
    *(
        Binding(f"{number}", f"show_tab('{tab.id}')", tab.label, show=False, id=f"tab.{tab.id}")
        for number, tab in enumerate(TABS, 1)
    ),
    *(
        # Not Alt and a digit: without the kitty protocol terminals send that as Esc and a digit, or as a letter.
        Binding(f"f{number + 1}", f"show_tab('{tab.id}')", tab.label, show=False, priority=True)
        for number, tab in enumerate(TABS, 1)
    ),
    Binding("escape", "leave", "Leave the field", show=False, id="app.leave"),
    Binding(
        "f1",
        "help",
        "Help",
        key_display="F1",
        priority=True,
        id="app.help",
        tooltip="Keys and guide of this screen",
    ),
    Binding("ctrl+z", "undo", "Undo", show=False, id="app.undo", tooltip="Undo the last change of the recipe"),
    Binding("ctrl+y", "redo", "Redo", show=False, id="app.redo", tooltip="Make an undone change again"),
    Binding(
        "Y",
        "recipe_text",
        "Recipe as YAML",
        show=False,
        id="app.recipe_text",
        tooltip="Show, edit and compare the current recipe as YAML",
    ),
    Binding("f9", "jobs", "Jobs", show=False, priority=True, id="app.jobs", tooltip="Show what runs in the background"),
    Binding("f10", "settings", "Settings", show=False, priority=True, id="app.settings", tooltip="Theme, keys, limits"),
    Binding("ctrl+q", "quit", "Quit", show=False, priority=True, id="app.quit"),
]
register(KEYS)
