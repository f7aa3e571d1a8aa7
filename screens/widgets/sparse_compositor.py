"""Frames that are made of what has changed alone.

For a frame in which a knob on the left and a figure on the right have changed, Textual 8.2 has every widget give its
lines that touches the box around both, and drops most of them: half of what a key costs on a form of forty rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual._compositor import ChopsUpdate, Compositor
from textual.geometry import Region

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from textual.screen import Screen
    from textual.widget import Widget


def _together(regions: Iterable[Region]) -> Iterator[Region]:
    """Regions of the same columns, such as the lines of one widget, as one around them."""
    columns: dict[tuple[int, int], list[Region]] = {}
    for region in regions:
        columns.setdefault((region.x, region.width), []).append(region)
    return (Region.from_union(some) for some in columns.values())


class SparseCompositor(Compositor):
    """Asks only widgets that a changed region touches. What is sent to the terminal is the same."""

    _changed: tuple[Region, ...] = ()

    @classmethod
    def of(cls, screen: Screen) -> None:
        """Give a screen such a one, before anything was painted on it."""
        screen._compositor = cls()

    def render_partial_update(self) -> ChopsUpdate | None:
        # Where widgets begin and end on each line is found once, and of all of them.
        _ = self.cuts
        self._changed = tuple(_together(self._dirty_regions))
        try:
            return super().render_partial_update()
        finally:
            self._changed = ()

    @property
    def visible_widgets(self) -> dict[Widget, tuple[Region, Region]]:
        found = super().visible_widgets
        if not self._changed:
            return found
        return {
            widget: (region, clip)
            for widget, (region, clip) in found.items()
            if any(region.intersection(clip).overlaps(changed) for changed in self._changed)
        }
