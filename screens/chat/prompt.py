"""Chat's input field, for questions and for results of tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input

from screens.dialogs.external_editor import edit_in_editor
from screens.widgets.glyphs import unicode_terminal
from screens.widgets.plain import plain
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.events import Paste
    from textual.widget import Widget

    from screens.chat.blind import Side
    from screens.workbench import Workbench

_MESSAGE = "Type a message, Enter to send"
_LINE_END = "↵" if unicode_terminal() else "\\n"


class Prompt(Input):
    """Chat's input field. While it has the focus letters are text, so it has keys of its own.

    The field has one line. A text of several lines, such as a pasted one, has a mark at the end of each, which is a
    line feed in :attr:`text`.

    Args:
        transcript: what ``pageup`` and ``pagedown`` scroll.
        can_switch: returns whether the adapter can be switched, as ``check_action`` does.
        waits_for_rating: returns whether two replies wait for the user's rating.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Send", id="prompt.send", tooltip="Send the message"),
        Binding("ctrl+j", "new_line", "New line", show=False, id="prompt.new_line", tooltip="Begin a new line"),
        Binding(
            "ctrl+g",
            "editor",
            "Editor",
            show=False,
            id="prompt.editor",
            tooltip="Write the message in $VISUAL or $EDITOR",
        ),
        Binding("ctrl+t", "switch", "Base/tuned", id="prompt.switch", tooltip="Switch the adapter off or on"),
        Binding(
            "ctrl+r",
            "answer_call",
            "Message/result",
            id="prompt.answer_call",
            tooltip="Type a message instead of the tool's result, or the result",
        ),
        Binding(
            "escape", "forget", "New question", id="prompt.forget", tooltip="Discard the edit of the earlier question"
        ),
        Binding("less_than_sign", "rate('left')", show=False, id="prompt.left", priority=True,
                tooltip="While the field is empty: the left reply is better"),
        Binding("equals_sign", "rate('even')", show=False, id="prompt.even", priority=True,
                tooltip="While the field is empty: neither reply is better"),
        Binding("greater_than_sign", "rate('right')", show=False, id="prompt.right", priority=True,
                tooltip="While the field is empty: the right reply is better"),
        Binding("pageup", "scroll(-1)", "Scroll", show=False, id="prompt.up"),
        Binding("pagedown", "scroll(1)", "Scroll", show=False, id="prompt.down"),
    ]  # fmt: skip

    class AdapterSwitched(Message):
        """The user pressed the key that switches the adapter off or on."""

    class Rated(Message):
        """A reply was rated better: ``left`` or ``right``, or ``even``."""

        def __init__(self, side: Side) -> None:
            super().__init__()
            self.side = side

    class EditDiscarded(Message):
        """The edit of an earlier question was discarded."""

    def __init__(
        self, transcript: Widget, can_switch: Callable[[], bool | None], waits_for_rating: Callable[[], bool]
    ) -> None:
        super().__init__(id="prompt", placeholder=_MESSAGE)
        self._transcript = transcript
        self._can_switch = can_switch
        self._waits_for_rating = waits_for_rating
        self._edited: int | None = None
        self._call = ""
        self._takes_result = True

    @property
    def is_result(self) -> bool:
        """Whether the text is the result of the model's call."""
        return bool(self._call) and self._takes_result and self._edited is None

    def expect_result(self, call: str) -> None:
        """Ask for the result of a call, given as text; or for a message if there is none."""
        if call != self._call:
            self._call, self._takes_result = call, True
            self._show_kind()

    def action_answer_call(self) -> None:
        """Type a message instead of the result, or the result again."""
        self._takes_result = not self._takes_result
        self._show_kind()

    def _show_kind(self) -> None:
        """Show as the placeholder what the field takes: a message or a result."""
        self.placeholder = f"Type the result of {plain(self._call)}" if self.is_result else _MESSAGE
        if self.is_attached:
            self.refresh_bindings()

    @property
    def text(self) -> str:
        """The text, with its lines."""
        return self.value.replace(_LINE_END, "\n").strip()

    @text.setter
    def text(self, text: str) -> None:
        self.value = _in_one_line(text)

    @property
    def edited(self) -> int | None:
        """The number of the turn whose question is edited; None for a new question."""
        return self._edited

    def edit(self, turn: int, question: str) -> None:
        """Edit the question of an earlier turn."""
        self._edited, self.text = turn, question
        self.border_title = f"editing question {turn + 1}: later turns are dropped"
        self.focus()

    def reset(self) -> None:
        """Empty the field for a new question."""
        self._edited, self.text = None, ""
        self.border_title = ""

    def action_new_line(self) -> None:
        """Begin a new line of the message."""
        start, end = self.selection
        self.replace(_LINE_END, min(start, end), max(start, end))

    def action_editor(self) -> None:
        """Write the message in the user's editor."""
        try:
            self.text = edit_in_editor(self.app, self.text, ".md").rstrip()
        except WorkbenchError as error:
            cast("Workbench", self.app).show_error(error)
        self.action_end()

    def on_paste(self, event: Paste) -> None:
        # Textual's own handler takes only the first line.
        event.stop()
        event.prevent_default()
        start, end = self.selection
        self.replace(_in_one_line(event.text), min(start, end), max(start, end))

    def action_switch(self) -> None:
        """Switch the adapter off or on."""
        self.post_message(self.AdapterSwitched())

    def action_rate(self, side: Side) -> None:
        """Rate the two replies in view."""
        self.post_message(self.Rated(side))

    def action_forget(self) -> None:
        """Discard the edit of the earlier question."""
        self.reset()
        self.post_message(self.EditDiscarded())

    def action_scroll(self, pages: int) -> None:
        """Scroll the conversation by pages."""
        self._transcript.scroll_relative(y=pages * self._transcript.size.height)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "forget":
            return self._edited is not None
        if action == "answer_call":
            return bool(self._call)
        if action == "rate":
            return not self.value and self._waits_for_rating()
        return self._can_switch() if action == "switch" else True


def _in_one_line(text: str) -> str:
    return _LINE_END.join(plain(line) for line in text.splitlines())
