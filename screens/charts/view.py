"""What part of its curves a chart shows, and how: smoothing, log axis, zoom and cursor. Changed by keys and mouse."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SPANS = (1, 5, 10, 20, 50, 100, 200)
"""How many logged points the smoothed line averages over; 1 for none."""

_NARROWEST = 4.0


@dataclass(frozen=True)
class View:
    """The state of a chart. Steps stand for whatever its x axis shows.

    Attributes:
        smoothing: an index of :data:`SPANS`. is_log: a logarithmic y axis.
        window: the first and last step shown; None for all.
        cursor: the step that is read; None without a cursor.
    """

    smoothing: int = 0
    is_log: bool = False
    window: tuple[float, float] | None = None
    cursor: float | None = None

    @property
    def span(self) -> int:
        """How many points the line averages over."""
        return SPANS[self.smoothing]

    def after(self, action: str, end: float, xs: Sequence[float], cells: int) -> View:
        """The view after a key.

        Args:
            action: one of ``smoother``, ``rougher``, ``log``, ``in``, ``out``, ``whole``, ``left``, ``right``,
                ``pan_left``, ``pan_right``.
            end: the last step of the axis without a zoom.
            xs: the steps that have points. cells: width of the chart.
        """
        low, high = self.window or (0.0, end)
        width = high - low
        match action:
            case "smoother" | "rougher":
                by = 1 if action == "smoother" else -1
                return replace(self, smoothing=min(len(SPANS) - 1, max(0, self.smoothing + by)))
            case "log":
                return replace(self, is_log=not self.is_log)
            case "whole":
                return replace(self, window=None, cursor=None)
            case "in" | "out":
                middle = self.cursor if self.cursor is not None else high
                return self._zoomed(middle, width / 2 if action == "in" else width * 2, end)
            case "pan_left" | "pan_right":
                by_steps = width / 4 * (1 if action == "pan_right" else -1)
                return self._zoomed((low + high) / 2 + by_steps, width, end) if self.window else self
        return self._moved(1 if action == "right" else -1, xs, max(1, cells), end)

    def at(self, x: float, xs: Sequence[float]) -> View:
        """The view with the cursor on the point nearest to ``x``."""
        return replace(self, cursor=min(xs, key=lambda one: abs(one - x))) if xs else self

    def _zoomed(self, middle: float, width: float, end: float) -> View:
        if width >= end:
            return replace(self, window=None)
        width = max(width, min(_NARROWEST, end))
        low = min(max(0.0, middle - width / 2), end - width)
        return replace(self, window=(low, low + width))

    def _moved(self, by: int, xs: Sequence[float], cells: int, end: float) -> View:
        """The next point that is at least a column away, with the window following."""
        if not xs:
            return self
        low, high = self.window or (0.0, end)
        if self.cursor is None:
            return replace(self, cursor=next((x for x in reversed(xs) if x <= high), xs[-1]))
        column = (high - low) / cells
        if by > 0:
            index = max(bisect_left(xs, self.cursor + column), bisect_left(xs, self.cursor) + 1)
        else:
            index = min(bisect_left(xs, self.cursor - column), bisect_left(xs, self.cursor) - 1)
        moved = replace(self, cursor=xs[min(len(xs) - 1, max(0, index))])
        at = moved.cursor or 0.0
        return moved if low <= at <= high else moved._zoomed(at, high - low, end)
