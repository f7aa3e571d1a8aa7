"""Frames that are made of what has changed alone.

For a frame in which a knob on the left and a figure on the right have changed, Textual 8.2 has every widget give its
lines that touches the box around both, and drops most of them: more than half of what a key costs on a form of forty
rows. Here widgets are asked from front to back until all that has changed is covered, each for the rows in question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual._compositor import ChopsUpdate, Compositor
from textual.geometry import Region

if TYPE_CHECKING:
    from textual.screen import Screen
    from textual.widget import Widget


class SparseCompositor(Compositor):
    """Asks only widgets that show what has changed. What is sent to the terminal is the same."""

    _changed: tuple[Region, ...] = ()

    @classmethod
    def of(cls, screen: Screen) -> None:
        """Give a screen such a one, before anything was painted on it."""
        screen._compositor = cls()

    def render_partial_update(self) -> ChopsUpdate | None:
        # Where widgets begin and end on each line is found once, and of all of them.
        _ = self.cuts
        self._changed = tuple(self._dirty_regions)
        try:
            return super().render_partial_update()
        finally:
            self._changed = ()

    @property
    def visible_widgets(self) -> dict[Widget, tuple[Region, Region]]:
        found = super().visible_widgets
        if not self._changed:
            return found
        shown: dict[Widget, tuple[Region, Region]] = {}
        uncovered = list(self._changed)
        for widget, (region, clip) in found.items():  # from front to back
            seen = region.intersection(clip)
            touched = [changed for changed in uncovered if changed.overlaps(seen)]
            if touched:
                shown[widget] = (region, _rows_of(touched, clip))
                uncovered = [changed for changed in uncovered if not seen.contains_region(changed)]
                if not uncovered:
                    break
        return shown


def _rows_of(regions: list[Region], clip: Region) -> Region:
    """The rows of a clip from the first to the last that regions lie on, as wide as it is."""
    top = max(clip.y, min(region.y for region in regions))
    bottom = min(clip.bottom, max(region.bottom for region in regions))
    return Region(clip.x, top, clip.width, bottom - top)
