"""The list of the longest records of a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual import on
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from screens.shell.header import short_name
from screens.widgets.plain import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.data.facts import DataFacts


class LongestList(OptionList):
    """The longest records, one per line: number, tokens, tokens lost to truncation, and file and line."""

    DEFAULT_CSS = """
    LongestList, LongestList:focus {
        height: auto; max-height: 8; padding: 0 1; background: transparent; scrollbar-size-vertical: 1;
        border: round $border-blurred; border-title-style: bold; border-title-color: $foreground 70%;
        text-wrap: nowrap; text-overflow: ellipsis;
    }
    LongestList:focus { border: round $border; border-title-color: $accent; }
    LongestList > .option-list--option { padding: 0; }
    LongestList.-empty { display: none; }
    """

    class Chosen(Message):
        """The user chose a record. ``index`` is its position in the dataset, from 0."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(markup=False, **kwargs)
        self._shown_lines: tuple[Content, ...] = ()
        self._indices: tuple[int, ...] = ()
        self.border_title = "longest records"
        self.add_class("-empty")

    def show(self, facts: DataFacts | None) -> None:
        """List the longest records of a dataset; hide the list without facts."""
        longest = facts.longest if facts else ()
        lines = _lines(longest, facts.max_length) if facts else ()
        self._indices = tuple(index for index, _, _ in longest)
        if lines != self._shown_lines:
            self._shown_lines = lines
            self.set_class(not lines, "-empty")
            highlighted = self.highlighted
            self.set_options([Option(line) for line in lines])
            self.highlighted = highlighted if highlighted is not None and highlighted < len(lines) else None

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(self.Chosen(self._indices[event.option_index]))


def _lines(longest: Sequence[tuple[int, str, int]], max_length: int) -> tuple[Content, ...]:
    """Return a line for each ``(index, where, tokens)``, in aligned columns."""
    cells = [
        (
            f"{index + 1:,}",
            f"{tokens:,} tokens",
            f"{tokens - max_length:,} lost" if tokens > max_length else "complete",
            where,
        )
        for index, where, tokens in longest
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return tuple(
        Content.assemble(
            (number.rjust(widths[0]), "bold"),
            f"  {tokens.rjust(widths[1])}  ",
            (lost.rjust(widths[2]), "$foreground 60%" if lost == "complete" else "$warning"),
            (f"  {plain(short_name(where))}", "$foreground 60%"),
        )
        for number, tokens, lost, where in cells
    )
