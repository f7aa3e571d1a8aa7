"""A conversation on screen: questions as text, replies as Markdown."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from markdown_it import MarkdownIt
from textual.containers import HorizontalGroup, VerticalGroup, VerticalScroll
from textual.widgets import Markdown, Static

from screens.widgets.plain import plain, plain_content

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from markdown_it.token import Token
    from textual.app import ComposeResult
    from textual.geometry import Size
    from textual.widgets.markdown import MarkdownStream

    from workbench.engine.client.conversations import Conversation

# A reply is drawn a few times a second, not for each token: each time its last paragraph is sent to the terminal.
_SECONDS_BETWEEN_DRAWS = 0.12


class _PlainMarkdown(MarkdownIt):
    """Parses Markdown and sanitizes the resulting tokens, since parsing turns ``&#27;`` into a control character.

    HTML is shown as text, and links have no target.
    """

    def __init__(self) -> None:
        super().__init__("commonmark", {"html": False})
        self.enable(["table", "strikethrough"])

    def parse(self, src: str, env: MutableMapping[str, Any] | None = None) -> list[Token]:
        return [_sanitized(token) for token in super().parse(src, env)]


def _sanitized(token: Token) -> Token:
    # Textual makes a link's target part of a click action. Nothing opens a link over SSH, and a model's text has no
    # place in an action.
    attributes = {name: "" if name in ("href", "src") else value for name, value in token.attrs.items()}
    children = [_sanitized(child) for child in token.children] if token.children is not None else None
    return token.copy(
        content=plain(token.content, lines=True), info=plain(token.info), attrs=attributes, children=children
    )


class Reply(Markdown):
    """A model's reply, drawn while it is generated."""

    DEFAULT_CSS = """
    Reply { padding: 0; margin: 0 0 0 2; }
    """

    def __init__(self) -> None:
        super().__init__(parser_factory=_PlainMarkdown, open_links=False)
        self._stream: MarkdownStream | None = None
        self._undrawn: list[str] = []
        self._last_draw = 0.0
        self.text = ""

    async def write(self, text: str) -> None:
        """Append a piece of text; pieces that arrive in quick succession are drawn together."""
        self.text += text
        self._undrawn.append(text)
        if monotonic() - self._last_draw >= _SECONDS_BETWEEN_DRAWS:
            await self._draw()

    async def close(self) -> None:
        """Draw what is left; call it when the reply has ended."""
        await self._draw()
        if self._stream is not None:
            await self._stream.stop()
            self._stream = None

    async def _draw(self) -> None:
        self._last_draw = monotonic()
        if not self._undrawn:
            return
        if self._stream is None:
            self._stream = Markdown.get_stream(self)
        text = "".join(self._undrawn)
        self._undrawn.clear()
        await self._stream.write(plain(text, lines=True))


class Column(VerticalGroup):
    """One model's reply to a question, with the model's name above and its token counts and speed below."""

    DEFAULT_CSS = """
    Column { width: 1fr; }
    Column .who { text-style: bold; color: $secondary; margin-top: 1; height: 1; }
    Column .who { text-wrap: nowrap; text-overflow: ellipsis; }
    Column .figures { margin-left: 2; height: auto; color: $text-muted; }
    Column .problem { margin: 1 0 0 2; height: auto; color: $error; }
    """

    def __init__(self, model: str) -> None:
        super().__init__()
        self._model = model
        self._reply: Reply | None = None

    def compose(self) -> ComposeResult:
        yield _line(self._model, "who")

    @property
    def text(self) -> str:
        """The text of the reply so far."""
        return self._reply.text if self._reply is not None else ""

    async def write(self, text: str) -> None:
        """Append a piece of the reply."""
        if self._reply is None:
            self._reply = Reply()
            await self.mount(self._reply)
        await self._reply.write(text)

    async def close(self) -> None:
        """Draw what is left; call it when the reply has ended."""
        if self._reply is not None and self._reply.is_attached:
            await self._reply.close()

    async def show_figures(self, text: str) -> None:
        """Add a dim line under the reply."""
        await self.mount(_line(text, "figures"))

    async def show_problem(self, text: str) -> None:
        """Add an error that says why there is no reply."""
        await self.mount(_line(text, "problem"))


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

    def __init__(self, question: str, models: Sequence[str]) -> None:
        super().__init__()
        self._question = question
        self.columns = [Column(model) for model in models]
        self.failed = False

    def compose(self) -> ComposeResult:
        yield _line("you", "you")
        yield _line(self._question, "said")
        yield HorizontalGroup(*self.columns)


class Transcript(VerticalScroll):
    """The turns of a conversation, the newest at the bottom and in view."""

    DEFAULT_CSS = """
    Transcript { height: 1fr; padding: 0 1; }
    Transcript .notice { margin: 1 0 0 2; height: auto; color: $text-muted; }
    Transcript .notice.-error { color: $error; }
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

    async def ask(self, question: str, models: Sequence[str]) -> TurnView:
        """Add a question with an empty column for each model's reply, and scroll to the end."""
        turn = TurnView(question, models)
        await self.mount(turn)
        if self._overflows:
            self.anchor()
        return turn

    async def notice(self, text: str, *, error: bool = False) -> None:
        """Add a dim paragraph, or one in the colour of errors."""
        await self.mount(_line(text, "notice -error" if error else "notice"))

    async def keep_first(self, count: int) -> None:
        """Remove everything after the conversation's first turns; failed turns are not counted."""
        kept = self._hidden = min(self._hidden, count)
        for child in list(self.children):
            if kept >= count:
                await child.remove()
            elif isinstance(child, TurnView) and not child.failed:
                kept += 1

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
            view = await self.ask(turn.question, [reply.who for reply in turn.replies])
            for column, reply in zip(view.columns, turn.replies, strict=True):
                await column.write(reply.text)
                await column.close()
                await column.show_figures(reply.figures)


def _line(text: str, classes: str) -> Static:
    return Static(plain_content(text, lines=True), classes=classes)
