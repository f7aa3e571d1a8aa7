"""The table of models, and the search field above it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from screens.forms.path_kinds import MODEL
from screens.widgets.glyphs import ENTER, GLYPHS
from screens.widgets.path_field import PathField
from screens.widgets.plain import plain
from workbench.units import short

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from screens.models.rows import ModelRow
    from screens.shell.fit import Fit

_WIDTHS = {"": 1, "model": 36, "size": 5, "family": 11, "license": 10, "fits": 5}
_ONLY_WIDE = "license"


class ModelTable(DataTable[Text], inherit_bindings=False):
    """The models, one per line. Enter is the pane's key, so that the footer says what it does."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "cursor_up", show=False),
        Binding("down", "cursor_down", show=False),
        Binding("pageup", "page_up", show=False),
        Binding("pagedown", "page_down", show=False),
        Binding("home", "scroll_top", show=False),
        Binding("end", "scroll_bottom", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(cursor_type="row", cell_padding=1)
        self._is_wide: bool | None = None

    def set_columns(self, *, wide: bool) -> bool:
        """Show the columns that fit; returns whether they are others than before, and the table is empty."""
        if wide == self._is_wide:
            return False
        self._is_wide = wide
        self.clear(columns=True)
        for label, width in _WIDTHS.items():
            if label != _ONLY_WIDE or wide:
                self.add_column(Text(label), width=width, key=label)
        return True

    def fill(self, rows: Iterable[ModelRow], in_use: str, fits: Mapping[str, Fit]) -> None:
        """Show these models.

        Args:
            in_use: the source of the recipe's model.
            fits: the verdicts known so far, by source.
        """
        self.clear()
        for row in rows:
            self.add_row(*self._cells(row, fits.get(row.source), is_used=row.source == in_use), key=row.source)

    def show_fits(self, rows: Iterable[ModelRow], fits: Mapping[str, Fit]) -> None:
        """Show which models fit."""
        colors = self.app.theme_variables
        for row in rows:
            if (fit := fits.get(row.source)) is not None:
                self.update_cell(row.source, "fits", Text(fit.word, style=colors[fit.color]))

    def _cells(self, row: ModelRow, fit: Fit | None, *, is_used: bool) -> list[Text]:
        colors = self.app.theme_variables
        owner, slash, name = plain(row.source).rpartition("/")
        muted, accent = colors["muted"], colors["accent"]
        title = Text.assemble((owner + slash, muted), (name, f"bold {accent}" if is_used else ""), overflow="ellipsis")
        if len(title) > _WIDTHS["model"] and row.place in ("folder", "file"):
            title = Text.assemble(("…/", muted), (name, f"bold {accent}" if is_used else ""))
        cells = [
            Text(GLYPHS.pointer if is_used else GLYPHS.dot if row.place == "here" else "", style=accent),
            title,
            Text(short(row.parameters) if row.parameters else "", justify="right"),
            Text(plain(row.model_type), style=muted, overflow="ellipsis"),
            Text(plain(row.licence), style=muted, overflow="ellipsis"),
            Text(fit.word, style=colors[fit.color]) if fit else Text(""),
        ]
        return cells if self._is_wide else [*cells[:4], cells[5]]


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
