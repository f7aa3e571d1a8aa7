"""One record of a dataset: as the tokens fed to training, or turn by turn before the template."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from screens.widgets.plain import plain
from workbench.data.facts import Example

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from workbench.data.sources import Item

# A longer record is a document, of which the beginning is enough.
_CHARACTERS_SHOWN = 20_000
_PLACES_MARKED = 200

TRAINED = "underline $success"
"""The style of trained tokens; the underline serves those who see no color."""
MASKED = "$foreground 65%"

_LOOKS = {"user": "bold $accent", "assistant": "bold $secondary", "system": "bold $warning"}


class RecordView(VerticalScroll):
    """Shows a conversation or a text, or why the record cannot be used for training."""

    DEFAULT_CSS = """
    RecordView { height: 1fr; padding: 0 1; scrollbar-size-vertical: 1; }
    RecordView Static { height: auto; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: tuple[Item | Example, str] | None = None
        self._text = Static(markup=False)

    def compose(self) -> ComposeResult:
        yield self._text

    def show(self, record: Item | Example, searched: str = "") -> None:
        """Show a record from its beginning, with the places of a searched text marked."""
        if (record, searched) != self._shown:
            content = _fed(record) if isinstance(record, Example) else _content(record)
            places = _places(content, plain(searched, lines=True)) if searched else []
            for start, end in places:
                content = content.stylize("reverse", start, end)
            self._say(content)
            self._shown = record, searched
            if places:
                self.call_after_refresh(self._scroll_to_line_of, content[: places[0][1]])

    def say(self, text: str, cure: str = "") -> None:
        """Show a message instead of a record."""
        self._say(Content.assemble((plain(text, lines=True), ""), (f"\n\n{plain(cure, lines=True)}", "bold")))

    def _scroll_to_line_of(self, before: Content) -> None:
        """Scroll to the last line of the text before a place."""
        line = before.get_height({}, max(self._text.size.width, 1)) - 1
        if line >= self.size.height:
            self.scroll_to(y=line - 1, animate=False)

    def _say(self, content: Content) -> None:
        self._shown = None
        self._text.update(content)
        self.scroll_home(animate=False)


def _fed(example: Example) -> Content:
    """Return the text of the tokens, the trained ones underlined and in a color of their own."""
    spans = [span for span in example.spans if span[0] < _CHARACTERS_SHOWN]
    pieces = [
        (plain(example.text[start : min(end, _CHARACTERS_SHOWN)], lines=True), TRAINED if trained else MASKED)
        for start, end, trained in spans
    ]
    cut = f"\n… {example.cut:,} tokens truncated" if example.cut else ""
    return Content.assemble(_unused(example.unused), *pieces, (_more(example.text), ""), (cut, "bold $warning"))


def _unused(paths: Sequence[str]) -> tuple[str, str]:
    """The fields of a record that are not fed, to stand above it."""
    return (f"not used: {plain(', '.join(paths))}\n", "$warning") if paths else ("", "")


def _places(content: Content, searched: str) -> list[tuple[int, int]]:
    """Return start and end of the first places where the searched text occurs."""
    found = re.finditer(re.escape(searched), content.plain, re.IGNORECASE)
    return [place.span() for place in islice(found, _PLACES_MARKED)]


def _content(item: Item) -> Content:
    if item.content is None:
        return Content.assemble(
            ("This record cannot be used for training.\n\n", "bold $error"), (plain(item.problem), "")
        )
    if isinstance(item.content, str):
        return Content(_shortened(item.content))
    turns = [Content.assemble(_unused([field.path for field in item.unused]))] if item.unused else []
    for message in item.content.messages:
        role = message["role"]
        turns.append(
            Content.assemble((f"{plain(role)}\n", _LOOKS.get(role, "bold")), (_shortened(message["content"]), ""))
        )
    return Content("\n\n").join(turns)


def _shortened(text: str) -> str:
    return plain(text[:_CHARACTERS_SHOWN], lines=True) + _more(text)


def _more(text: str) -> str:
    return f"\n… {len(text) - _CHARACTERS_SHOWN:,} more characters" if len(text) > _CHARACTERS_SHOWN else ""
