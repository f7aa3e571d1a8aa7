"""The table of models, its filters and its order, and the search field above it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from screens.forms.path_kinds import MODEL
from screens.widgets.glyphs import ENTER, GLYPHS
from screens.widgets.lazy_table import Column, LazyTable
from screens.widgets.path_field import PathField
from screens.widgets.plain import plain
from workbench.units import file_size, gib_number, short

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from screens.models.rows import ModelRow
    from screens.shell.fit import Fit

COLUMNS = (
    Column("mark", "", 1),
    Column("model", "model", 36, is_flexible=True),
    Column("size", "size", 6, is_right=True, drop=3),
    Column("needs", "needs GiB", 9, is_right=True, drop=2),
    Column("margin", "margin", 7, is_right=True, drop=5),
    Column("fits", "fits", 5),
    Column("disk", "on disk", 8, is_right=True, drop=4),
    Column("context", "context", 7, is_right=True, drop=6),
    Column("license", "license", 12, drop=7),
    Column("family", "family", 13, drop=8),
)


@dataclass(frozen=True)
class Filter:
    """A chip above the table: its name, and which models it shows."""

    name: str
    holds: Callable[[ModelRow, Fit | None], bool]


FILTERS = (
    Filter("all", lambda row, fit: True),
    Filter("on this machine", lambda row, fit: row.place != "hub"),
    Filter("fits", lambda row, fit: fit is not None and fit.word != "no"),
    Filter("not gated", lambda row, fit: not row.gated),
    Filter("up to 4B", lambda row, fit: row.parameters is not None and row.parameters <= 4.5e9),
)


def _margin(fit: Fit | None) -> int | None:
    return fit.free - fit.needs if fit is not None and fit.free is not None and fit.needs is not None else None


# What a column is sorted by, and whether the largest come first. Models without a value come last.
_ORDERS: Mapping[str, tuple[Callable[[ModelRow, Fit | None], str | float | None], bool]] = {
    "model": (lambda row, fit: row.source.casefold(), False),
    "size": (lambda row, fit: row.parameters, False),
    "needs": (lambda row, fit: fit.needs if fit is not None else None, False),
    "margin": (lambda row, fit: _margin(fit), True),
    "fits": (lambda row, fit: ("fits", "tight", "no").index(fit.word) if fit is not None else None, False),
    "disk": (lambda row, fit: row.size_on_disk or None, True),
    "context": (lambda row, fit: row.context_length, True),
    "license": (lambda row, fit: row.licence.casefold() or None, False),
    "family": (lambda row, fit: row.model_type.casefold() or None, False),
}


def sorted_rows(rows: Sequence[ModelRow], fits: Mapping[str, Fit], by: str, *, turned: bool) -> list[ModelRow]:
    """Sort models by a column; without one they stay as they are: those on this machine first."""
    if by not in _ORDERS:
        return list(rows)
    key, descending = _ORDERS[by]
    keyed = [(key(row, fits.get(row.source)), row) for row in rows]
    known = [(value, row) for value, row in keyed if value is not None]
    known.sort(key=lambda pair: pair[0], reverse=descending != turned)
    return [row for _, row in known] + [row for value, row in keyed if value is None]


class ModelTable(LazyTable, inherit_bindings=False):
    """The models, one per line. Enter is the pane's key, so that the footer says what it does."""

    BINDINGS: ClassVar[list[BindingType]] = [*LazyTable.BINDINGS]

    def __init__(self) -> None:
        super().__init__(COLUMNS)
        self.by = ""
        self.turned = False

    def show(self, rows: Sequence[ModelRow], in_use: str, fits: Mapping[str, Fit], *, cursor: int) -> None:
        """Show these models.

        Args:
            in_use: the source of the recipe's model.
            fits: the verdicts known so far, by source.
        """

        def cell(index: int, column: str) -> Text:
            row = rows[index]
            return self._cell(row, column, fits.get(row.source), is_used=row.source == in_use)

        self.fill(len(rows), cell, cursor=cursor)
        if self.by:
            descending = _ORDERS[self.by][1] != self.turned
            title = next(column.title for column in COLUMNS if column.key == self.by)
            self.titles({self.by: f"{title}{GLYPHS.down if descending else GLYPHS.up}"})
        else:
            self.titles({})

    def sort_by(self, column: str) -> None:
        """Sort by a column; the second time in reverse, the third time not at all."""
        if column not in _ORDERS:
            return
        if column != self.by:
            self.by, self.turned = column, False
        elif not self.turned:
            self.turned = True
        else:
            self.by, self.turned = "", False

    def sort_by_neighbor(self, by: int) -> None:
        """Sort by the next column that is shown, or the previous one; beyond the ends they are not sorted."""
        names = ["", *(name for name in self.shown_columns if name in _ORDERS)]
        here = names.index(self.by) if self.by in names else 0
        self.by, self.turned = names[(here + by) % len(names)], False

    def _cell(self, row: ModelRow, column: str, fit: Fit | None, *, is_used: bool) -> Text:
        colors = self.app.theme_variables
        muted, accent = colors["muted"], colors["accent"]
        match column:
            case "mark":
                return Text(GLYPHS.pointer if is_used else GLYPHS.dot if row.place == "here" else "", style=accent)
            case "model":
                owner, slash, name = plain(row.source).rpartition("/")
                if row.place in ("folder", "file"):
                    # Of a path the end tells most.
                    owner = "…" if owner else ""
                return Text.assemble((owner + slash, muted), (name, f"bold {accent}" if is_used else ""))
            case "size":
                return Text(short(row.parameters) if row.parameters else "")
            case "needs":
                return Text(gib_number(fit.needs, 1) if fit is not None and fit.needs is not None else "")
            case "margin":
                margin = _margin(fit)
                text = "" if margin is None else f"{'+' if margin >= 0 else '-'}{gib_number(abs(margin), 1)}"
                return Text(text, style=colors[fit.color] if fit is not None else "")
            case "fits":
                return Text(fit.word, style=colors[fit.color]) if fit is not None else Text("")
            case "disk":
                return Text(file_size(row.size_on_disk) if row.size_on_disk else "")
            case "context":
                return Text(short(row.context_length) if row.context_length else "", style=muted)
            case "license":
                return Text(plain(row.licence), style=muted)
        return Text(plain(row.model_type), style=muted)


class Chips(Static):
    """The filters in a line; the chosen one is marked. A click chooses one."""

    class Chosen(Message):
        """Another filter was clicked; ``index`` is its place in :data:`FILTERS`."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def __init__(self) -> None:
        super().__init__(markup=False, id="models-chips")
        self._ends: list[int] = []

    def show(self, chosen: int, counts: Sequence[int]) -> None:
        """Show the filters with the number of models that each has."""
        parts: list[Content] = []
        self._ends = []
        for index, (one, count) in enumerate(zip(FILTERS, counts, strict=True)):
            text = f" {one.name} {count} "
            parts.append(Content.styled(text, "bold $block-cursor-foreground on $block-cursor-background"
                                        if index == chosen else "$muted"))  # fmt: skip
            self._ends.append((self._ends[-1] if self._ends else 0) + len(text))
        self.update(Content("").join(parts))

    def on_click(self, event: events.Click) -> None:
        """Choose the filter that was clicked."""
        offset = event.get_content_offset(self)
        index = next((i for i, end in enumerate(self._ends) if offset is not None and offset.x < end), None)
        if index is not None:
            self.post_message(self.Chosen(index))


class SearchField(PathField):
    """The search, or the path of a model. The arrows move in the table while it is typed.

    Args:
        table: the table below.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Use this model", key_display=ENTER, id="search.use"),
        Binding("up", "walk(-1)", show=False),
        Binding("down", "walk(1)", show=False),
    ]

    def __init__(self, table: ModelTable) -> None:
        placeholder = "Search, or type a folder, a .gguf file or owner/name"
        super().__init__(kind=MODEL, placeholder=placeholder, compact=True, select_on_focus=False)
        self._table = table

    def action_walk(self, by: int) -> None:
        """Move the table's cursor."""
        self._table.move_cursor(row=self._table.cursor_row + by)
