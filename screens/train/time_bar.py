"""The parts of a step's time: ``step 2.31 s ▕█▓▓▓▓▓▒▒▒▒▒▒▒▒▏`` and its legend, or all on one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from screens.widgets.glyphs import GLYPHS
from screens.widgets.line_painted import UNSTYLED, LinePaintedWidget, Piece, strip_of
from workbench.runs.step_times import PARTS
from workbench.units import step_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.style import Style
    from textual.strip import Strip

_GAP = "  "


class TimeBar(LinePaintedWidget):
    """The parts of a step: in words if it is one line high, with a bar above them if it is two."""

    # It shows a mean over many steps, which changes slowly.
    REDRAWS_A_SECOND = 0.2
    COMPONENT_CLASSES = {"time--label", *(f"time--{part}" for part in PARTS)}  # noqa: RUF012
    DEFAULT_CSS = """
    TimeBar { height: 2; }
    TimeBar > .time--label { color: $text-muted; }
    TimeBar > .time--data { color: $term-adapters; }
    TimeBar > .time--forward { color: $term-weights; }
    TimeBar > .time--backward { color: $term-optimizer; }
    TimeBar > .time--optimizer { color: $term-activations; }
    TimeBar > .time--other { color: $term-workspace; }
    """

    def __init__(self, **names: str) -> None:
        super().__init__(**names)
        self._seconds = 0.0
        self._shares: Mapping[str, float] = {}

    def show(self, seconds: float, shares: Mapping[str, float]) -> None:
        """Show new times.

        Args:
            seconds: the duration of a step.
            shares: of each part, from 0 to 1; if empty, the widget takes no room.
        """
        self.display = bool(shares)
        if (seconds, shares) != (self._seconds, self._shares):
            self._seconds, self._shares = seconds, shares
            self.changed()

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        if not self._shares:
            return []
        label = self.get_component_rich_style("time--label")
        head: list[Piece] = [("step ", label), (step_time(self._seconds), UNSTYLED)]
        words = [(part, f"{self._shares.get(part, 0.0):.0%}") for part in PARTS]
        if height == 1:
            return [strip_of([*head, *(piece for word in words for piece in _named(*word, label))])]
        taken = sum(len(text) for text, _ in head) + 3
        bar = [(" ", UNSTYLED), (GLYPHS.left, label), *self._bar(width - taken), (GLYPHS.right, label)]
        legend = [
            piece
            for index, word in enumerate(words)
            for piece in (
                (_GAP if index else "", UNSTYLED),
                (f"{_glyph(index)}", self._style(word[0])),
                *_named(*word, label, " "),
            )
        ]
        return [strip_of([*head, *bar]), strip_of(legend)]

    def _bar(self, width: int) -> list[Piece]:
        """Return the bar: each part has its own color and, for those who see none, its own filling."""
        pieces: list[Piece] = []
        drawn, running = 0, 0.0
        for index, part in enumerate(PARTS):
            running += self._shares.get(part, 0.0)
            cells = round(min(running, 1.0) * width) - drawn
            pieces.append((_glyph(index) * cells, self._style(part)))
            drawn += cells
        return pieces

    def _style(self, part: str) -> Style:
        return self.get_component_rich_style(f"time--{part}")


def _named(part: str, share: str, label: Style, gap: str = _GAP) -> tuple[Piece, Piece]:
    return (f"{gap}{part} ", label), (share, UNSTYLED)


def _glyph(index: int) -> str:
    return GLYPHS.terms[index % len(GLYPHS.terms)]
