"""The line to write in."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import Input

from screens.widgets.transcript import Transcript

if TYPE_CHECKING:
    from screens.chat import ChatPane


class Prompt(Input):
    """The line to write in. While it has the focus letters are text, so its keys are others."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Send", id="prompt.send", tooltip="Send what stands in the line"),
        Binding("ctrl+t", "switch", "Base/tuned", id="prompt.switch", tooltip="Adapter off and on"),
        Binding("escape", "forget", "New question", id="prompt.forget", tooltip="Leave the earlier question as it is"),
        Binding("pageup", "scroll(-1)", "Scroll", show=False, id="prompt.up"),
        Binding("pagedown", "scroll(1)", "Scroll", show=False, id="prompt.down"),
    ]

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
    def _pane(self) -> ChatPane:
        from screens.chat import ChatPane

        return next(node for node in self.ancestors if isinstance(node, ChatPane))
