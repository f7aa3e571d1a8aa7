"""A reply on screen: its reasoning folded, its answer as Markdown, its calls of tools, its figures."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from markdown_it import MarkdownIt
from textual.containers import VerticalGroup
from textual.message import Message
from textual.widgets import Markdown, Static

from screens.widgets.glyphs import GLYPHS
from screens.widgets.plain import plain, plain_content
from workbench.data.records.reasoning import split_thinking
from workbench.data.records.tool_calls import call_text
from workbench.engine.client import protocol
from workbench.engine.client.conversations import Said

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from markdown_it.token import Token
    from textual.app import ComposeResult
    from textual.widgets.markdown import MarkdownStream

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


class Reasoning(VerticalGroup):
    """The reasoning of a reply, folded into one line until the transcript unfolds all of them."""

    DEFAULT_CSS = """
    Reasoning { height: auto; margin-left: 2; color: $text-muted; }
    Reasoning Static { height: auto; }
    Reasoning .thought { display: none; margin-left: 2; }
    """

    class Clicked(Message):
        """The line was clicked."""

    def __init__(self) -> None:
        super().__init__()
        self._line = Static(markup=False)
        self._thought = Static(classes="thought", markup=False)
        self._last_draw = 0.0
        self.text = ""

    def compose(self) -> ComposeResult:
        yield self._line
        yield self._thought

    def write(self, text: str) -> None:
        """Append a piece; it is drawn a few times a second."""
        self.text += text
        if monotonic() - self._last_draw >= _SECONDS_BETWEEN_DRAWS:
            self.draw()

    def draw(self) -> None:
        """Draw what there is."""
        self._last_draw = monotonic()
        words = len(self.text.split())
        self._line.update(f"{GLYPHS.closed} reasoning, {words:,} word{'' if words == 1 else 's'}")
        self._thought.update(plain_content(self.text.strip(), lines=True))

    def on_click(self) -> None:
        self.post_message(self.Clicked())


class Column(VerticalGroup):
    """One model's reply to a question, with the model's name above and its token counts and speed below.

    Args:
        model: the name.
        is_blind: ``model`` stands for a name that is hidden until :meth:`reveal`.
    """

    DEFAULT_CSS = """
    Column { width: 1fr; }
    Column .who { text-style: bold; color: $secondary; margin-top: 1; height: 1; }
    Column .who { text-wrap: nowrap; text-overflow: ellipsis; }
    Column .figures { margin-left: 2; height: auto; color: $text-muted; }
    Column .problem { margin: 1 0 0 2; height: auto; color: $error; }
    Column .call { margin: 0 0 0 2; height: auto; color: $accent; }
    """

    def __init__(self, model: str, *, is_blind: bool = False) -> None:
        super().__init__()
        self._who = line(model, "who")
        self._is_blind = is_blind
        self._hidden_figures = ""
        self._reasoning: Reasoning | None = None
        self._reply: Reply | None = None
        self._message: protocol.Message | None = None

    def compose(self) -> ComposeResult:
        yield self._who

    def reveal(self, model: str) -> None:
        """Show the model's name, and the token counts and speed that would have told it."""
        if self._is_blind:
            self._is_blind = False
            self._who.update(plain_content(model))
            if self._hidden_figures:
                self.mount(line(self._hidden_figures, "figures"))

    @property
    def text(self) -> str:
        """The text of the reply so far."""
        return self._reply.text if self._reply is not None else ""

    def said(self, who: str, figures: str) -> Said:
        """Return the reply as a conversation keeps it."""
        message = self._message or protocol.Message(role="assistant", content=self.text)
        reasoning, calls = message.reasoning_content, tuple(message.tool_calls)
        return Said(who=who, text=message.content, figures=figures, reasoning=reasoning, calls=calls)

    async def write_reasoning(self, text: str) -> None:
        """Append a piece of the reasoning, which comes before the reply."""
        if self._reasoning is None:
            self._reasoning = Reasoning()
            await self.mount(self._reasoning)
        self._reasoning.write(text)

    async def write(self, text: str) -> None:
        """Append a piece of the reply."""
        if self._reply is None:
            self._reply = Reply()
            await self.mount(self._reply)
        await self._reply.write(text)

    async def close(self) -> None:
        """Draw what is left; call it when the reply has ended."""
        if self._reasoning is not None:
            self._reasoning.draw()
        if self._reply is not None and self._reply.is_attached:
            await self._reply.close()

    async def show_message(self, message: protocol.Message) -> None:
        """Show the whole reply: calls of tools as such, and not as the text that the model wrote for them."""
        self._message = message
        if not message.tool_calls:
            return
        await self.close()
        if self._reply is not None:
            await self._reply.remove()
            self._reply = None
        _, answer = split_thinking(message.content)
        if answer.strip():
            await self.write(answer)
        await self.mount(*(line(f"calls {call_text(call)}", "call") for call in message.tool_calls))
        await self.close()

    async def show_figures(self, text: str) -> None:
        """Add a dim line under the reply; a blind column keeps it until :meth:`reveal`."""
        if self._is_blind:
            self._hidden_figures = text
            return
        await self.mount(line(text, "figures"))

    async def show_problem(self, text: str) -> None:
        """Add an error that says why there is no reply."""
        await self.mount(line(text, "problem"))


def line(text: str, classes: str) -> Static:
    """Return text from outside as a widget."""
    return Static(plain_content(text, lines=True), classes=classes)
