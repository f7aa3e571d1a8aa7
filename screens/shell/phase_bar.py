"""The progress of a run or a reply: ``training ▕██████▏   ▏ 35 %  step 212/600   ETA 04:12``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from screens.widgets.glyphs import GLYPHS, Glyphs, bar
from screens.widgets.line_painted import UNSTYLED, LinePaintedWidget, Piece, strip_of
from screens.widgets.plain import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.strip import Strip

_BAR_WIDTH = 24


class PhaseBar(LinePaintedWidget):
    """One line: the phase, a bar if its end is known, and a text."""

    REDRAWS_A_SECOND = 1
    COMPONENT_CLASSES = {"phase-bar--phase", "phase-bar--bar", "phase-bar--words"}  # noqa: RUF012
    DEFAULT_CSS = """
    PhaseBar { height: 1; }
    PhaseBar > .phase-bar--phase { text-style: bold; }
    PhaseBar > .phase-bar--bar { color: $accent; background: $panel; }
    PhaseBar > .phase-bar--words { color: $text-muted; }
    """

    def __init__(self, *, glyphs: Glyphs = GLYPHS, **names: str | None) -> None:
        super().__init__(**names)
        self._glyphs = glyphs
        self._state: tuple[str, float | None, str] = ("", None, "")

    def show(self, phase: str, fraction: float | None = None, words: str = "") -> None:
        """Show a phase.

        Args:
            phase: in a word.
            fraction: done so far, from 0 to 1; None if the end is unknown, which shows no bar.
            words: any further text.
        """
        state = (plain(phase), fraction, plain(words))
        if state != self._state:
            self._state = state
            self.changed()

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        phase, fraction, words = self._state
        pieces: list[Piece] = [(phase, self.get_component_rich_style("phase-bar--phase"))]
        if fraction is not None:
            pieces += [
                (f" {self._glyphs.left}", UNSTYLED),
                (bar(fraction, _BAR_WIDTH, self._glyphs), self.get_component_rich_style("phase-bar--bar")),
                (f"{self._glyphs.right} {fraction:4.0%}".replace("%", " %"), UNSTYLED),
            ]
        return [strip_of([*pieces, (f"  {words}", self.get_component_rich_style("phase-bar--words"))])]
