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

# A reply is drawn a few times a second, not for each token: every redraw sends its last paragraph again.
_SECONDS_BETWEEN_DRAWS = 0.12


class _PlainMarkdown(MarkdownIt):
    """Markdown whose text is made safe after parsing, because ``&#27;`` becomes a control character only then.

    HTML is shown as text, and links have no target.
    """

    def __init__(self) -> None:
        super().__init__("commonmark", {"html": False})
        self.enable(["table", "strikethrough"])

    def parse(self, src: str, env: MutableMapping[str, Any] | None = None) -> list[Token]:
        return [_made_plain(token) for token in super().parse(src, env)]


def _made_plain(token: Token) -> Token:
    # A link's target would go into an action of the widget: it cannot be followed over SSH, and must not be forged.
    attributes = {name: "" if name in ("href", "src") else value for name, value in token.attrs.items()}
    children = [_made_plain(child) for child in token.children] if token.children is not None else None
    return token.copy(
        content=plain(token.content, lines=True), info=plain(token.info), attrs=attributes, children=children
    )


class Reply(Markdown):
    """A model's reply, drawn as it comes."""

    DEFAULT_CSS = """
    Reply { padding: 0; margin: 0 0 0 2; }
    """

    def __init__(self) -> None:
        super().__init__(parser_factory=_PlainMarkdown, open_links=False)
        self._stream: MarkdownStream | None = None
        self._waiting: list[str] = []
        self._drawn = 0.0
        self.text = ""

    async def write(self, text: str) -> None:
        """Append a piece; several are drawn together."""
        self.text += text
        self._waiting.append(text)
        if monotonic() - self._drawn >= _SECONDS_BETWEEN_DRAWS:
            await self._draw()

    async def close(self) -> None:
        """Draw the rest: the reply has ended."""
        await self._draw()
        if self._stream is not None:
            await self._stream.stop()
            self._stream = None

    async def _draw(self) -> None:
        self._drawn = monotonic()
        if not self._waiting:
            return
        if self._stream is None:
            self._stream = Markdown.get_stream(self)
        text = "".join(self._waiting)
        self._waiting.clear()
        await self._stream.write(plain(text, lines=True))


class Column(VerticalGroup):
    """One target's reply to a question, with its name above and its figures below."""

    DEFAULT_CSS = """
    Column { width: 1fr; }
    Column .who { text-style: bold; color: $secondary; margin-top: 1; height: 1; }
    Column .who { text-wrap: nowrap; text-overflow: ellipsis; }
    Column .figures { margin-left: 2; height: auto; color: $text-muted; }
    Column .problem { margin: 1 0 0 2; height: auto; color: $error; }
    """

    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = who
        self._reply: Reply | None = None

    def compose(self) -> ComposeResult:
        yield _line(self._who, "who")

    @property
    def text(self) -> str:
        """The reply so far."""
        return self._reply.text if self._reply is not None else ""

    async def write(self, text: str) -> None:
        """Append a piece of the reply."""
        if self._reply is None:
            self._reply = Reply()
            await self.mount(self._reply)
        await self._reply.write(text)

    async def close(self) -> None:
        """Draw the rest: the reply has ended."""
        if self._reply is not None and self._reply.is_attached:
            await self._reply.close()

    async def figures(self, text: str) -> None:
        """Show figures in a dim line under the reply."""
        await self.mount(_line(text, "figures"))

    async def problem(self, text: str) -> None:
        """Show why there is no reply."""
        await self.mount(_line(text, "problem"))


class TurnView(VerticalGroup):
    """A question and its replies, side by side if there are several."""

    DEFAULT_CSS = """
    TurnView .you { text-style: bold; color: $accent; margin-top: 1; height: 1; }
    TurnView .said { margin-left: 2; height: auto; }
    TurnView HorizontalGroup Column { margin-right: 2; }
    TurnView HorizontalGroup Column:last-of-type { margin-right: 0; }
    """

    def __init__(self, question: str, whos: Sequence[str]) -> None:
        super().__init__()
        self._question = question
        self.columns = [Column(who) for who in whos]
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

    def __init__(self, **names: Any) -> None:
        super().__init__(can_focus=False, **names)
        self._overflows = False

    def watch_virtual_size(self, size: Size) -> None:
        """Keep the end in view once there is more than fits; before that Textual's anchor would leave a gap on top."""
        if size.height > self.size.height and not self._overflows:
            self._overflows = True
            self.anchor()

    async def ask(self, text: str, whos: Sequence[str]) -> TurnView:
        """Add a question with a column for each target, and scroll to the end."""
        turn = TurnView(text, whos)
        await self.mount(turn)
        if self._overflows:
            self.anchor()
        return turn

    async def notice(self, text: str, *, error: bool = False) -> None:
        """Add a dim paragraph between turns, or why a turn failed."""
        await self.mount(_line(text, "notice -error" if error else "notice"))

    async def keep(self, turns: int) -> None:
        """Remove all but the first turns; failed ones are not counted."""
        whole = 0
        for child in list(self.children):
            if whole >= turns:
                await child.remove()
            elif isinstance(child, TurnView) and not child.failed:
                whole += 1

    async def clear(self) -> None:
        """Remove all turns."""
        self._overflows = False
        self.release_anchor()
        await self.remove_children()

    async def show(self, conversation: Conversation, *, most: int) -> None:
        """Show the last turns of another conversation."""
        await self.clear()
        hidden = max(len(conversation.turns) - most, 0)
        if hidden:
            await self.notice(f"{hidden} earlier turns are not shown.")
        for turn in conversation.turns[hidden:]:
            view = await self.ask(turn.question, [reply.who for reply in turn.replies])
            for column, reply in zip(view.columns, turn.replies, strict=True):
                await column.write(reply.text)
                await column.close()
                await column.figures(reply.figures)


def _line(text: str, classes: str) -> Static:
    return Static(plain_content(text, lines=True), classes=classes)
