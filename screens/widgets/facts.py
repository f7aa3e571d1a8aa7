"""Labeled values, side by side or below each other: ``lr 1.6e-4   grad norm 0.83   …``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len

from screens.widgets.line_painted import UNSTYLED, LinePaintedWidget, Piece, strip_of
from screens.widgets.plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.style import Style
    from textual.strip import Strip


_GAP = 3


class Fact(NamedTuple):
    """A value with its label. ``tone`` is one of ``""``, ``good``, ``warn``, ``bad``."""

    label: str
    value: str
    tone: str = ""


class Facts(LinePaintedWidget):
    """Values side by side, each as wide as it has ever been, so that they keep their places.

    Args:
        stacked: show them below each other, as a table.
    """

    REDRAWS_A_SECOND = 1
    COMPONENT_CLASSES = {"facts--label", "facts--good", "facts--warn", "facts--bad"}  # noqa: RUF012
    DEFAULT_CSS = """
    Facts { height: 1; }
    Facts > .facts--label { color: $text-muted; }
    Facts > .facts--good { color: $success; }
    Facts > .facts--warn { color: $warning; }
    Facts > .facts--bad { color: $error; }
    """

    def __init__(self, *, stacked: bool = False, **names: str | None) -> None:
        super().__init__(**names)
        self._stacked = stacked
        self._facts: tuple[Fact, ...] = ()
        self._widths: dict[str, int] = {}

    def show(self, facts: Iterable[Fact]) -> None:
        """Show these values; empty ones are left out."""
        facts = tuple(Fact(plain(fact.label), plain(fact.value), fact.tone) for fact in facts if fact.value)
        if facts != self._facts:
            self._facts = facts
            self.changed()

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        return self._table() if self._stacked else self._row(width)

    def _table(self) -> list[Strip]:
        column = max((len(fact.label) for fact in self._facts), default=0) + 2
        return [strip_of([(fact.label.ljust(column), self._label_style), self._value(fact)]) for fact in self._facts]

    def _row(self, width: int) -> list[Strip]:
        lines: list[list[Piece]] = [[]]
        used = 0
        for fact in self._facts:
            place = self._widths[fact.label] = max(cell_len(fact.value), self._widths.get(fact.label, 0))
            needed = len(fact.label) + 1 + place
            if used and used + needed > width:
                lines.append([])
                used = 0
            gap = " " * (place - cell_len(fact.value) + _GAP)
            lines[-1] += [(f"{fact.label} ", self._label_style), self._value(fact), (gap, UNSTYLED)]
            used += needed + _GAP
        return [strip_of(line) for line in lines]

    @property
    def _label_style(self) -> Style:
        return self.get_component_rich_style("facts--label")

    def _value(self, fact: Fact) -> Piece:
        return fact.value, self.get_component_rich_style(f"facts--{fact.tone}") if fact.tone else UNSTYLED
