"""A conversation on screen: questions as text, replies as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual import on
from textual.containers import HorizontalGroup, VerticalGroup, VerticalScroll

from screens.chat.reply_view import Column, Reasoning, line
from workbench.data.records.reasoning import split_thinking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult
    from textual.geometry import Size

    from workbench.engine.client.conversations import Conversation
    from workbench.engine.client.protocol import Message


class TurnView(VerticalGroup):
    """A question and its replies, side by side if several models reply.

    Attributes:
        failed: no model replied, so that the conversation does not contain this turn.
    """

    DEFAULT_CSS = """
    TurnView .you { text-style: bold; color: $accent; margin-top: 1; height: 1; }
    TurnView .said { margin-left: 2; height: auto; }
    TurnView HorizontalGroup Column { margin-right: 2; }
    TurnView HorizontalGroup Column:last-of-type { margin-right: 0; }
    """

    def __init__(self, question: Message, models: Sequence[str], *, is_blind: bool = False) -> None:
        super().__init__()
        self._question = question
        self.columns = [Column(model, is_blind=is_blind) for model in models]
        self.failed = False

    def compose(self) -> ComposeResult:
        yield line(f"result of {self._question.name}" if self._question.role == "tool" else "you", "you")
        yield line(self._question.content, "said")
        yield HorizontalGroup(*self.columns)


class Transcript(VerticalScroll):
    """The turns of a conversation, the newest at the bottom and in view."""

    DEFAULT_CSS = """
    Transcript { height: 1fr; padding: 0 1; }
    Transcript .notice { margin: 1 0 0 2; height: auto; color: $text-muted; }
    Transcript .notice.-error { color: $error; }
    Transcript.-unfolded Reasoning .thought { display: block; }
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(can_focus=False, **kwargs)
        self._overflows = False
        # How many turns of the conversation come before those in view.
        self._hidden = 0

    def watch_virtual_size(self, size: Size) -> None:
        """Anchor the view to the end once the turns fill it. Anchored earlier, Textual leaves a gap above them."""
        if size.height > self.size.height and not self._overflows:
            self._overflows = True
            self.anchor()

    async def ask(self, question: Message, models: Sequence[str], *, is_blind: bool = False) -> TurnView:
        """Add a question with an empty column for each model's reply, and scroll to the end."""
        turn = TurnView(question, models, is_blind=is_blind)
        await self.mount(turn)
        if self._overflows:
            self.anchor()
        return turn

    async def notice(self, text: str, *, error: bool = False) -> None:
        """Add a dim paragraph, or one in the color of errors."""
        await self.mount(line(text, "notice -error" if error else "notice"))

    async def keep_first(self, count: int) -> None:
        """Remove everything after the conversation's first turns; failed turns are not counted."""
        self._hidden = min(self._hidden, count)
        kept = self._hidden  # they are the conversation's first turns
        children = list(self.children)
        if self._hidden:
            del children[0]  # says how many turns are hidden
        for child in children:
            if kept >= count:
                await child.remove()
            elif isinstance(child, TurnView) and not child.failed:
                kept += 1

    @property
    def has_reasoning(self) -> bool:
        """Whether a reply in view has reasoning."""
        return bool(self.query(Reasoning))

    @on(Reasoning.Clicked)
    def toggle_reasoning(self) -> None:
        """Unfold the reasoning of all replies, or fold it."""
        self.toggle_class("-unfolded")

    async def clear(self) -> None:
        """Remove all turns."""
        self._overflows, self._hidden = False, 0
        self.release_anchor()
        await self.remove_children()

    async def show(self, conversation: Conversation, *, most: int) -> None:
        """Show another conversation, at most its last ``most`` turns."""
        await self.clear()
        self._hidden = max(len(conversation.turns) - most, 0)
        if self._hidden:
            await self.notice(f"{self._hidden} earlier turns are not shown.")
        for turn in conversation.turns[self._hidden :]:
            view = await self.ask(turn.message, [reply.who for reply in turn.replies])
            for column, reply in zip(view.columns, turn.replies, strict=True):
                thought, answer = split_thinking(reply.text)
                if reasoning := reply.reasoning or thought:
                    await column.write_reasoning(reasoning)
                if answer and not reply.calls:  # with calls, show_message writes the answer
                    await column.write(answer)
                await column.close()
                await column.show_message(reply.message)
                await column.show_figures(reply.figures)
