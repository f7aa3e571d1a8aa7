"""A conversation on screen: what was said by whom, Markdown where the model wrote it."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from markdown_it import MarkdownIt
from textual.containers import VerticalScroll
from textual.widgets import Markdown, Static

from screens.widgets.plain import plain, plain_content

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from markdown_it.token import Token
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


class Transcript(VerticalScroll):
    """The turns of a conversation, the newest at the bottom and in view."""

    DEFAULT_CSS = """
    Transcript { height: 1fr; padding: 0 1; }
    Transcript .who { text-style: bold; margin-top: 1; height: 1; }
    Transcript .user { color: $accent; }
    Transcript .model { color: $secondary; }
    Transcript .said { margin-left: 2; height: auto; }
    Transcript .figures { margin-left: 2; height: auto; color: $text-muted; }
    Transcript .problem { margin: 1 0 0 2; height: auto; color: $error; }
    """

    def __init__(self, **names: str) -> None:
        super().__init__(can_focus=False, **names)
        self._overflows = False

    def watch_virtual_size(self, size: Size) -> None:
        """Stay at the end once there is more than fits; before that Textual's anchor would leave a hole on top."""
        if size.height > self.size.height and not self._overflows:
            self._overflows = True
            self.anchor()

    async def ask(self, text: str) -> None:
        """What the user said; whoever had scrolled back is brought to the end."""
        await self._add(("you", "who user"), (text, "said"))
        if self._overflows:
            self.anchor()

    async def answer(self, who: str) -> Reply:
        """A place for a reply; whoever has it writes into it."""
        reply = Reply()
        await self.mount(_line(who, "who model"), reply)
        return reply

    async def figures(self, text: str) -> None:
        """A dim line under a reply."""
        await self._add((text, "figures"))

    async def problem(self, text: str) -> None:
        """Why there is no reply."""
        await self._add((text, "problem"))

    async def clear(self) -> None:
        """Forget all that was said."""
        self._overflows = False
        self.release_anchor()
        await self.remove_children()

    async def _add(self, *lines: Sequence[str]) -> None:
        await self.mount(*(_line(text, classes) for text, classes in lines))


def _line(text: str, classes: str) -> Static:
    return Static(plain_content(text, lines=True), classes=classes)
