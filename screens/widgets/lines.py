"""A block of text lines that repaints only the changed ones, for numbers that change with every key."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from textual.content import Content, Span
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.visual import Visual
from textual.widget import Widget

# Textual compares contents by their text alone; a line in another color is another line here.
_Key = tuple[str, tuple[Span, ...]]


class Lines(Widget):
    """Lines of content, wrapped to the width. A subclass calls :meth:`set_lines` with all of them each time."""

    auto_links = False

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes=classes)
        self._lines: Sequence[Content] = ()
        self._wrapped: dict[_Key, list[Strip]] = {}
        self._painted: list[Strip] = []
        # The width in cells that they were painted for.
        self._width = 0

    def set_lines(self, lines: Sequence[Content]) -> None:
        """Show these lines. The widget gets a new layout, which is expensive, only if they do not fit."""
        self._lines = lines
        if not self.size.width:
            self.refresh(layout=True)
            return
        before = self._painted
        self._paint()
        blank = Strip.blank(self.size.width)
        regions = [
            Region(0, y, self.size.width, 1)
            for y, (old, new) in enumerate(zip_longest(before, self._painted, fillvalue=blank))
            if old is not new
        ]
        if len(self._painted) > self.size.height:
            self.refresh(layout=True)
        elif regions:
            self.refresh(*regions)

    @property
    def text(self) -> str:
        """The text shown, without styles."""
        return "\n".join(line.plain for line in self._lines)

    def _paint(self) -> None:
        width, style = self.size.width, self.visual_style
        if width != self._width:
            self._forget()
            self._width = width
        known = self._wrapped
        self._wrapped = {}
        self._painted = []
        for line in self._lines:
            key = (line.plain, tuple(line.spans))
            strips = known.get(key)
            if strips is None:
                strips = Visual.to_strips(self, line, width, None, style, apply_selection=False) or [Strip.blank(width)]
            self._wrapped[key] = strips
            self._painted += strips

    # -- what Textual asks for ------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        # Textual may paint another width before the resize event arrives.
        if self._lines and (not self._painted or self._width != self.size.width):
            self._paint()
        if y < len(self._painted):
            return self._painted[y]
        return Strip.blank(self.size.width, self.visual_style.rich_style)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return sum(line.get_height(self.styles, width) for line in self._lines)  # type: ignore[arg-type, misc]

    def notify_style_update(self) -> None:
        self._forget()
        super().notify_style_update()

    def _forget(self) -> None:
        self._wrapped = {}
        self._painted = []
