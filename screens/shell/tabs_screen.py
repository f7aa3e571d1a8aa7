"""The screen that holds the tabs, below all dialogs."""

from __future__ import annotations

from typing import ClassVar

from textual.screen import Screen

from screens.widgets.pane import Pane


class TabsScreen(Screen[None]):
    """Gives the focus to the pane in front if a dialog leaves it with none.

    Textual would give it to the first field of all tabs, also of one that is not shown.
    """

    AUTO_FOCUS: ClassVar[str | None] = ""

    def on_screen_resume(self) -> None:
        if self.focused is None:
            for pane in self.query(Pane):
                if pane.is_shown:
                    pane.take_focus()
