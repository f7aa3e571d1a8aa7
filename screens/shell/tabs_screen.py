"""The screen that holds the tabs, below all dialogs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.screen import Screen

if TYPE_CHECKING:
    from screens.workbench import Workbench


class TabsScreen(Screen[None]):
    """Gives the focus to the pane in front if a dialog leaves it with none.

    Textual would give it to the first field of all tabs, also of one that is not shown.
    """

    AUTO_FOCUS: ClassVar[str | None] = ""

    def on_screen_resume(self) -> None:
        if self.focused is None and (pane := cast("Workbench", self.app).pane_in_front) is not None:
            pane.take_focus()
