"""A table of thousands of rows, of which only those in view are made: filling, filtering and sorting it is instant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: what it is called in the code; ``title`` on the screen.
        width: in cells. The flexible column gets what is left, and at least this.
        drop: the order in which columns drop out where there is too little room, the highest first; 0 never.
    """

    key: str
    title: str
    width: int
    is_right: bool = False
    is_flexible: bool = False
    drop: int = 0


def fitting_columns(columns: Sequence[Column], room: int, gap: int = 1) -> list[tuple[Column, int]]:
    """Return the columns that fit, with their widths. They drop out before the flexible one is cut.

    Args:
        gap: cells after each column.
    """
    kept = list(columns)
    while sum(one.width + gap for one in kept) > room and any(one.drop for one in kept):
        kept.remove(max(kept, key=lambda one: one.drop))
    rest = room - sum(one.width + gap for one in kept)
    return [(one, one.width + max(0, rest) if one.is_flexible else one.width) for one in kept]


class LazyTable(ScrollView, can_focus=True, inherit_bindings=False):
    """Rows under a heading that stays, with a cursor on one of them."""

    DEFAULT_CSS = """
    LazyTable { height: 1fr; width: 1fr; scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; }
    LazyTable > .lazy-table--heading { color: $muted; }
    LazyTable > .lazy-table--cursor { background: $block-cursor-blurred-background; }
    LazyTable:focus > .lazy-table--cursor {
        background: $block-cursor-background; color: $block-cursor-foreground;
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"lazy-table--heading", "lazy-table--cursor"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "go(0)", show=False),
        Binding("end", "go(-1)", show=False),
    ]

    class Highlighted(Message):
        """The cursor is on another row."""

    class Selected(Message):
        """The row under the cursor was clicked again."""

    class HeadingClicked(Message):
        """The heading of a column was clicked; ``column`` is its key."""

        def __init__(self, column: str) -> None:
            super().__init__()
            self.column = column

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        self._columns = tuple(columns)
        self._fitted: tuple[int, list[tuple[Column, int]]] = (-1, [])
        self._titles: dict[str, str] = {}
        self._count = 0
        self._cursor = 0
        self._cells: Callable[[int, str], Text] = lambda _, __: Text("")
        self._lines: dict[int, Strip] = {}

    # -- content --------------------------------------------------------------------------------------------------

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return self._count

    @property
    def cursor_row(self) -> int:
        """The row with the cursor; 0 in an empty table."""
        return self._cursor

    @property
    def shown_columns(self) -> list[str]:
        """The keys of the columns that there is room for."""
        return [column.key for column, _ in self._fitting]

    def fill(self, count: int, cells: Callable[[int, str], Text], *, cursor: int = 0) -> None:
        """Show ``count`` rows from now on.

        Args:
            cells: returns the text of a row's column, by the row's number and the column's key. Called for rows in
                view only.
            cursor: the row with the cursor.
        """
        self._count, self._cells = count, cells
        self._cursor = max(0, min(cursor, count - 1))
        self.virtual_size = Size(self.size.width, count + 1)
        self._lines.clear()
        self._show_cursor()
        self.refresh()

    def titles(self, titles: dict[str, str]) -> None:
        """Show other titles for some columns, such as with an arrow at the one that the rows are sorted by."""
        if titles != self._titles:
            self._titles = dict(titles)
            self.refresh()

    def move_cursor(self, *, row: int) -> None:
        """Move the cursor to a row."""
        before, self._cursor = self._cursor, max(0, min(row, self._count - 1))
        if before != self._cursor:
            for one in (before, self._cursor):
                self._lines.pop(one, None)
                self._refresh_row(one)
            self._show_cursor()
            self.post_message(self.Highlighted())

    def _refresh_row(self, row: int) -> None:
        y = row - self.scroll_offset.y + 1
        if 0 < y < self.size.height:
            self.refresh(Region(0, y, self.size.width, 1))

    def _show_cursor(self) -> None:
        """Scroll as little as needed for the cursor to be in view."""
        room = max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False)
        elif self._cursor >= top + room:
            self.scroll_to(y=self._cursor - room + 1, animate=False)

    # -- keys and mouse -------------------------------------------------------------------------------------------

    def action_move(self, by: int) -> None:
        """Move the cursor by rows."""
        self.move_cursor(row=self._cursor + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by pages."""
        self.move_cursor(row=self._cursor + by * max(1, self.size.height - 2))

    def action_go(self, row: int) -> None:
        """Go to the first row, or with -1 to the last."""
        self.move_cursor(row=row if row >= 0 else self._count - 1)

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to a row, select the one that has it, or tell of a click on a heading."""
        offset = event.get_content_offset(self)
        if offset is None:
            return
        if offset.y == 0:
            at = 0
            for column, width in self._fitting:
                at += width + 1
                if offset.x < at:
                    self.post_message(self.HeadingClicked(column.key))
                    return
            return
        row = self.scroll_offset.y + offset.y - 1
        if row == self._cursor and row < self._count:
            self.post_message(self.Selected())
        elif row < self._count:
            self.move_cursor(row=row)

    # -- painting -------------------------------------------------------------------------------------------------

    @property
    def _fitting(self) -> list[tuple[Column, int]]:
        """The columns that fit the present width, with their own."""
        width = self.size.width
        if self._fitted[0] != width:
            self._fitted = width, fitting_columns(self._columns, width)
            self._lines.clear()
        return self._fitted[1]

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, self._count + 1)
        self._lines.clear()
        self._show_cursor()
        self.refresh()

    def notify_style_update(self) -> None:
        self._lines.clear()
        super().notify_style_update()

    def on_focus(self) -> None:
        self._lines.pop(self._cursor, None)
        self._refresh_row(self._cursor)

    def on_blur(self) -> None:
        self.on_focus()

    def render_line(self, y: int) -> Strip:
        width, base, fitting = self.size.width, self.rich_style, self._fitting
        if y == 0:
            style = base + self.get_component_rich_style("lazy-table--heading", partial=True)
            texts = [
                Text(self._titles.get(column.key, column.title), justify="right" if column.is_right else "left")
                for column, _ in fitting
            ]
            return self._line(texts, style, width)
        row = self.scroll_offset.y + y - 1
        if row >= self._count:
            return Strip.blank(width, base)
        if row not in self._lines:
            if len(self._lines) > 500:
                self._lines.clear()
            style = base
            if row == self._cursor:
                style = base + self.get_component_rich_style("lazy-table--cursor", partial=True)
            texts = [self._cells(row, column.key) for column, _ in fitting]
            self._lines[row] = self._line(texts, style, width)
        return self._lines[row]

    def _line(self, texts: Sequence[Text], base: Style, width: int) -> Strip:
        segments: list[Segment] = []
        for text, (column, cells) in zip(texts, self._fitting, strict=False):
            cell = text.copy()
            cell.truncate(cells, overflow="ellipsis")
            room = " " * max(0, cells - cell.cell_len)
            parts = [Segment(part.text, base + (part.style or Style())) for part in cell.render(self.app.console)]
            padding = Segment(room, base)
            segments += [padding, *parts] if column.is_right else [*parts, padding]
            segments.append(Segment(" ", base))
        return Strip(segments).adjust_cell_length(width, base).simplify()
