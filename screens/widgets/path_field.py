"""A text field for a path or a source: Tab completes it, Ctrl+O opens a file tree."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.binding import Binding, BindingType
from textual.widgets import Input

from screens.widgets.path_completion import common_start, completions, last_part

if TYPE_CHECKING:
    from textual import events

    from screens.widgets.path_completion import PathKind
    from screens.workbench import Workbench


class PathField(Input):
    """A text field for a path.

    Tab extends the text as far as all completions agree, then goes through them; with none it moves the focus.

    Args:
        value: the text at first.
        kind: what may be typed.
        arguments: those of ``Input``.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "complete", "Complete", key_display="Tab", id="path.complete",
                tooltip="Complete the path; again: the next completion"),
        Binding("ctrl+o", "browse", "Browse", id="path.browse", tooltip="Choose a file or folder in a tree"),
    ]  # fmt: skip

    def __init__(self, value: str = "", *, kind: PathKind, **arguments: Any) -> None:
        super().__init__(value, **arguments)
        self.kind = kind
        # The completions that Tab goes through; the first of them is the text now.
        self._round: list[str] = []

    def on_key(self, event: events.Key) -> None:
        if event.key != "tab":
            self._round = []

    async def action_complete(self) -> None:
        """Complete the path, or move the focus if there is nothing to complete."""
        text = self.value
        if self._round and text == self._round[0]:
            self._round = [*self._round[1:], self._round[0]]
            self._take(self._round[0])
            return
        found = await asyncio.to_thread(self._completions, text)
        if text != self.value:
            return
        if not found:
            self.screen.focus_next()
        elif len(common := common_start(found)) > len(text):
            self._take(common)
        else:
            self._round = found
            self._take(found[0])

    def action_browse(self) -> None:
        """Choose a file or folder in a tree, or a source used before."""
        from screens.widgets.file_tree import FileTreeScreen

        def chosen(path: str | None) -> None:
            if path is not None:
                self._take(last_part(self.value, self.kind)[0] + path)

        self.app.push_screen(FileTreeScreen(self.value, self.kind), chosen)

    def _completions(self, text: str) -> list[str]:
        home = cast("Workbench", self.app).session.home
        names = [*self.kind.names(home), *self.kind.used(home)] if text else []
        return completions(text, self.kind, names)

    def _take(self, text: str) -> None:
        self.value = text
        self.cursor_position = len(text)
