"""One record of a dataset: as the tokens fed to training, or turn by turn before the template."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from screens.widgets.glyphs import GLYPHS
from screens.widgets.plain import plain
from workbench.data.facts import Example
from workbench.data.records.conversation import Conversation, Labeled, Pair, Segments, Unpaired
from workbench.data.records.values import common_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from workbench.data.records.conversation import Message
    from workbench.data.sources import Item

# A longer record is a document, of which the beginning is enough.
_CHARACTERS_SHOWN = 20_000
_PLACES_MARKED = 200

TRAINED = "underline $success"
"""The style of trained tokens; the underline serves those who see no color."""
MASKED = "$foreground 65%"

_LOOKS = {
    "user": "bold $accent",
    "assistant": "bold $secondary",
    "system": "bold $warning",
    "chosen": "bold $success",
    "rejected": "bold $error",
    "good": "bold $success",
    "bad": "bold $error",
    "label": "bold $accent",
}


class RecordView(VerticalScroll):
    """Shows a conversation or a text, or why the record cannot be used for training."""

    DEFAULT_CSS = """
    RecordView { height: 1fr; padding: 0 1; scrollbar-size-vertical: 1; }
    RecordView Static { height: auto; }
    RecordView #sides { height: auto; margin-top: 1; display: none; }
    RecordView.-pair #sides { display: block; }
    RecordView #sides Static { width: 1fr; }
    RecordView #chosen { margin-right: 2; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: tuple[Item | Example, str] | None = None
        self._text = Static(markup=False)
        self._chosen = Static(markup=False, id="chosen")
        self._rejected = Static(markup=False, id="rejected")

    def compose(self) -> ComposeResult:
        yield self._text
        yield Horizontal(self._chosen, self._rejected, id="sides")

    def show(self, record: Item | Example, searched: str = "") -> None:
        """Show a record from its beginning, with the places of a searched text marked."""
        if (record, searched) != self._shown:
            parts = _fed(record) if isinstance(record, Example) else _content(record)
            found = [_places(part, plain(searched, lines=True)) if searched else [] for part in parts]
            for number, places in enumerate(found):
                for start, end in places:
                    parts[number] = parts[number].stylize("reverse", start, end)
            self._say(*parts)
            self._shown = record, searched
            if found[0]:
                self.call_after_refresh(self._scroll_to_line_of, parts[0][: found[0][0][1]])

    def say(self, text: str, cure: str = "") -> None:
        """Show a message instead of a record."""
        self._say(Content.assemble((plain(text, lines=True), ""), (f"\n\n{plain(cure, lines=True)}", "bold")))

    def _scroll_to_line_of(self, before: Content) -> None:
        """Scroll to the last line of the text before a place."""
        line = before.get_height({}, max(self._text.size.width, 1)) - 1
        if line >= self.size.height:
            self.scroll_to(y=line - 1, animate=False)

    def _say(self, content: Content, *sides: Content) -> None:
        """Show a text, and below it the two sides of a pair next to each other."""
        self._shown = None
        self._text.update(content)
        self.set_class(len(sides) == 2, "-pair")
        for widget, side in zip((self._chosen, self._rejected), sides, strict=False):
            widget.update(side)
        self.scroll_home(animate=False)


def _fed(example: Example) -> list[Content]:
    """Return the text of the tokens, the trained ones underlined and in a color of their own.

    A pair is its prompt and then each side from where they part.
    """
    unused = _unused(example.unused)
    if example.rejected is None:
        verdict = [*_verdict(example.good), *_label(example.label)]
        return [Content.assemble(unused, *verdict, _tokens_of(example, 0))]
    at = example.parts_at
    sides = []
    for name, side in (("chosen", example), ("rejected", example.rejected)):
        heading = (f"{name} {GLYPHS.separator} {side.tokens:,} tokens\n", _LOOKS[name])
        sides.append(Content.assemble(heading, _tokens_of(side, at)))
    return [Content.assemble(unused, _tokens_of(example, 0, at)), *sides]


def _tokens_of(example: Example, first: int, end: int | None = None) -> Content:
    """The text of an example between two characters, to its end if ``end`` is None."""
    limit = first + _CHARACTERS_SHOWN if end is None else min(end, first + _CHARACTERS_SHOWN)
    pieces = [
        (plain(example.text[max(start, first) : min(stop, limit)], lines=True), TRAINED if trained else MASKED)
        for start, stop, trained in example.spans
        if start < limit and stop > first
    ]
    if end is not None:
        return Content.assemble(*pieces)
    cut = f"\n… {example.cut:,} tokens truncated" if example.cut else ""
    return Content.assemble(*pieces, (_more(example.text[first:]), ""), (cut, "bold $warning"))


def _unused(paths: Sequence[str]) -> tuple[str, str]:
    """The fields of a record that are not fed, to stand above it."""
    return (f"not used: {plain(', '.join(paths))}\n", "$warning") if paths else ("", "")


def _verdict(good: bool | None) -> list[tuple[str, str]]:
    """What the label of an unpaired response says, to stand above it."""
    if good is None:
        return []
    name = "good" if good else "bad"
    return [(f"{name} response\n", _LOOKS[name])]


def _label(label: str | None) -> list[tuple[str, str]]:
    """The label of a text for classification, to stand above it."""
    return [] if label is None else [(f"label: {plain(label)}\n", _LOOKS["label"])]


def _places(content: Content, searched: str) -> list[tuple[int, int]]:
    """Return start and end of the first places where the searched text occurs."""
    found = re.finditer(re.escape(searched), content.plain, re.IGNORECASE)
    return [place.span() for place in islice(found, _PLACES_MARKED)]


def _content(item: Item) -> list[Content]:
    """A record before the template; a pair is its prompt and then what is left of each side."""
    content = item.content
    unused = [Content.assemble(_unused([field.path for field in item.unused]))] if item.unused else []
    if content is None:
        problem = (plain(item.problem), "")
        return [Content.assemble(("This record cannot be used for training.\n\n", "bold $error"), problem)]
    if isinstance(content, str):
        return [Content("\n\n").join([*unused, Content(_shortened(content))])]
    if isinstance(content, Segments):
        segments = [(_shortened(text), TRAINED if trained else MASKED) for text, trained in content.segments]
        return [Content("\n\n").join([*unused, Content.assemble(*segments)])]
    if isinstance(content, Conversation):
        return [Content("\n\n").join([*unused, *_turns(content.messages)])]
    if isinstance(content, Unpaired):
        verdict = Content.assemble(*_verdict(content.good)).rstrip()
        return [Content("\n\n").join([*unused, verdict, *_turns(content.response.messages)])]
    if isinstance(content, Labeled):
        label = Content.assemble(*_label(content.label)).rstrip()
        of_text = content.content
        read = [Content(_shortened(of_text))] if isinstance(of_text, str) else _turns(of_text.messages)
        return [Content("\n\n").join([*unused, label, *read])]
    prompt, sides = _parted(content)
    headings = [Content.assemble((f"{name}\n", _LOOKS[name])) for name in ("chosen", "rejected")]
    return [
        Content("\n\n").join([*unused, *prompt]),
        *(heading + Content("\n\n").join(side) for heading, side in zip(headings, sides, strict=True)),
    ]


def _parted(pair: Pair) -> tuple[list[Content], list[list[Content]]]:
    """The prompt of a pair, and the rest of each side."""
    one, other = pair.chosen, pair.rejected
    if isinstance(one, Conversation) and isinstance(other, Conversation):
        at = common_length(one.messages, other.messages)
        return _turns(one.messages[:at]), [_turns(side.messages[at:]) for side in (one, other)]
    texts = (str(one), str(other))
    at = common_length(*texts)
    return [Content(_shortened(texts[0][:at]))] if at else [], [[Content(_shortened(text[at:]))] for text in texts]


def _turns(messages: Sequence[Message]) -> list[Content]:
    return [
        Content.assemble(
            (f"{plain(message['role'])}\n", _LOOKS.get(message["role"], "bold")), (_shortened(message["content"]), "")
        )
        for message in messages
    ]


def _shortened(text: str) -> str:
    return plain(text[:_CHARACTERS_SHOWN], lines=True) + _more(text)


def _more(text: str) -> str:
    return f"\n… {len(text) - _CHARACTERS_SHOWN:,} more characters" if len(text) > _CHARACTERS_SHOWN else ""
