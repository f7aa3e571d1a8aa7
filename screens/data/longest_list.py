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
    """One line per record: number, tokens, how many are truncated, and where it comes from."""

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
        """A record was chosen, to be shown."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def __init__(self, **names: Any) -> None:
        super().__init__(markup=False, **names)
        self._listed: tuple[Content, ...] = ()
        self._gone_to: tuple[int, ...] = ()
        self.border_title = "longest records"
        self.add_class("-empty")

    def show(self, facts: DataFacts | None) -> None:
        """List the longest records of these facts."""
        longest = facts.longest if facts else ()
        lines = _lines(longest, facts.max_length) if facts else ()
        self._gone_to = tuple(index for index, _, _ in longest)
        if lines != self._listed:
            self._listed = lines
            self.set_class(not lines, "-empty")
            here = self.highlighted
            self.set_options([Option(line) for line in lines])
            self.highlighted = here if here is not None and here < len(lines) else None

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(self.Chosen(self._gone_to[event.option_index]))


def _lines(longest: Sequence[tuple[int, str, int]], limit: int) -> tuple[Content, ...]:
    """Return the lines, in aligned columns."""
    cells = [
        (
            f"{index + 1:,}",
            f"{tokens:,} tokens",
            f"{tokens - limit:,} lost" if tokens > limit else "complete",
            where,
        )
        for index, where, tokens in longest
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return tuple(
        Content.assemble(
            (number.rjust(widths[0]), "bold"),
            f"  {tokens.rjust(widths[1])}  ",
            (cut.rjust(widths[2]), "$foreground 60%" if cut == "complete" else "$warning"),
            (f"  {plain(short_name(where))}", "$foreground 60%"),
        )
        for number, tokens, cut, where in cells
    )
