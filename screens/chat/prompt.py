"""The line to write in."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, cast

from textual.binding import Binding, BindingType
from textual.widgets import Input

from screens.chat.transcript import Transcript
from screens.widgets.glyphs import unicode_terminal
from screens.widgets.pane import Pane
from screens.widgets.plain import plain

if TYPE_CHECKING:
    from textual.events import Paste

_LINE_END = "↵" if unicode_terminal() else "\\n"


class PromptOwner(Protocol):
    """The pane around the line. ``edits``: an earlier question stands in it to be changed."""

    edits: bool

    def action_switch(self) -> None:
        """Take the adapter off, or put it on."""

    def leave_edit(self) -> None:
        """Discard the edit of the earlier question."""

    def focus(self) -> object:
        """Take the focus."""

    def query_one(self, kind: type[Transcript]) -> Transcript:
        """The conversation above the line."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether an action can be done now."""


class Prompt(Input):
    """The line to write in. While it has the focus letters are text, so its keys are others.

    What is pasted keeps its lines: each end of one is a mark here, and a line feed in :attr:`text`.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Send", id="prompt.send", tooltip="Send the message"),
        Binding("ctrl+t", "switch", "Base/tuned", id="prompt.switch", tooltip="Switch the adapter off or on"),
        Binding(
            "escape", "forget", "New question", id="prompt.forget", tooltip="Discard the edit of the earlier question"
        ),
        Binding("pageup", "scroll(-1)", "Scroll", show=False, id="prompt.up"),
        Binding("pagedown", "scroll(1)", "Scroll", show=False, id="prompt.down"),
    ]

    @property
    def text(self) -> str:
        """What stands in it, in lines."""
        return self.value.replace(_LINE_END, "\n").strip()

    @text.setter
    def text(self, text: str) -> None:
        self.value = _in_one_line(text)

    def _on_paste(self, event: Paste) -> None:
        # Textual's own takes the first line and drops the others in silence.
        event.stop()
        event.prevent_default()
        start, end = self.selection
        self.replace(_in_one_line(event.text), min(start, end), max(start, end))

    def action_switch(self) -> None:
        self._pane.action_switch()

    def action_forget(self) -> None:
        self._pane.leave_edit()
        self._pane.focus()

    def action_scroll(self, pages: int) -> None:
        self._pane.query_one(Transcript).scroll_relative(y=pages * self._pane.query_one(Transcript).size.height)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "forget":
            return self._pane.edits
        return self._pane.check_action(action, parameters) if action == "switch" else True

    @property
    def _pane(self) -> PromptOwner:
        return cast("PromptOwner", next(node for node in self.ancestors if isinstance(node, Pane)))


def _in_one_line(text: str) -> str:
    return _LINE_END.join(plain(line) for line in text.splitlines())
