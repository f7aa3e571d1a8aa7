"""A conversation on screen: what was said by whom, Markdown where the model wrote it."""

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

# A reply is drawn a few times a second, not once a token: each redraw sends its last paragraph again.
_SECONDS_BETWEEN_DRAWS = 0.12


class _PlainMarkdown(MarkdownIt):
    """Markdown whose text is made plain after parsing, for ``&#27;`` is a control character only then.

    HTML stays visible as text, and links lead nowhere.
    """

    def __init__(self) -> None:
        super().__init__("commonmark", {"html": False})
        self.enable(["table", "strikethrough"])

    def parse(self, src: str, env: MutableMapping[str, Any] | None = None) -> list[Token]:
        return [_made_plain(token) for token in super().parse(src, env)]


def _made_plain(token: Token) -> Token:
    # A link's target goes into an action of the widget: there is nothing to follow over SSH, and nothing to forge.
    attributes = {name: "" if name in ("href", "src") else value for name, value in token.attrs.items()}
    children = [_made_plain(child) for child in token.children] if token.children is not None else None
    return token.copy(
        content=plain(token.content, lines=True), info=plain(token.info), attrs=attributes, children=children
    )


class Reply(Markdown):
    """A model's reply as it comes."""

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
        """Append a piece; it is drawn together with its neighbours."""
        self.text += text
        self._waiting.append(text)
        if monotonic() - self._drawn >= _SECONDS_BETWEEN_DRAWS:
            await self._draw()

    async def close(self) -> None:
        """Draw what is left; nothing more comes."""
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
    """One that answers a question: its name, its reply as it comes, and what there is to say about it."""

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
        """The reply has ended."""
        if self._reply is not None and self._reply.is_attached:
            await self._reply.close()

    async def figures(self, text: str) -> None:
        """A dim line under the reply."""
        await self.mount(_line(text, "figures"))

    async def problem(self, text: str) -> None:
        """Why there is no reply."""
        await self.mount(_line(text, "problem"))


class TurnView(VerticalGroup):
    """A question and its replies, side by side where there are several."""

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
        """Stay at the end once there is more than fits; before that Textual's anchor would leave a hole on top."""
        if size.height > self.size.height and not self._overflows:
            self._overflows = True
            self.anchor()

    async def ask(self, text: str, whos: Sequence[str]) -> TurnView:
        """What the user said, with a column for each that answers; one who had scrolled back is brought to the end."""
        turn = TurnView(text, whos)
        await self.mount(turn)
        if self._overflows:
            self.anchor()
        return turn

    async def notice(self, text: str, *, error: bool = False) -> None:
        """A dim paragraph between turns, or why a turn is not there."""
        await self.mount(_line(text, "notice -error" if error else "notice"))

    async def keep(self, turns: int) -> None:
        """Take away all but the first turns; those that failed are not counted."""
        whole = 0
        for child in list(self.children):
            if whole >= turns:
                await child.remove()
            elif isinstance(child, TurnView) and not child.failed:
                whole += 1

    async def clear(self) -> None:
        """Forget all that was said."""
        self._overflows = False
        self.release_anchor()
        await self.remove_children()


def _line(text: str, classes: str) -> Static:
    return Static(plain_content(text, lines=True), classes=classes)
