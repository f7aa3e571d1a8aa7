"""The table of all runs, one per line: sorted, filtered, with marks."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.message import Message
from textual.widgets import DataTable, Input

from screens.runs import facts as run_facts
from screens.shell.header import short_name
from screens.widgets.glyphs import ENTER, GLYPHS
from screens.widgets.plain import plain
from workbench.runs.library.listing import ORDERS, ListedRun, matches, sort_runs

if TYPE_CHECKING:
    from collections.abc import Iterable

# Title and width in cells; fixed, so that Textual need not measure a long history. The last two need a wide terminal.
_COLUMNS = (("state", 13), ("run", 16), ("steps", 8), ("loss", 6), ("perplexity", 13), ("started", 11))
_WIDE_COLUMNS = (*_COLUMNS, ("model", 22), ("tags", 12))

# Mark and color (a variable of the theme) of each state; its word is shown as well.
_LOOKS = {
    "finished": (GLYPHS.dot, "success"),
    "running": (GLYPHS.half, "accent"),
    "stopped": (GLYPHS.ring, "foreground"),
    "failed": (GLYPHS.dot, "error"),
    "interrupted": (GLYPHS.half, "warning"),
    "new": (GLYPHS.ring, "foreground"),
}


class RunTable(DataTable[Text]):
    """The runs that match the filter, in the chosen order; at first the newest on top."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "Open", id="runs.enter", tooltip="Show its curve, metrics and recipe"),
    ]

    class Rearranged(Message):
        """Other runs are shown, or the same in another order."""

    def __init__(self) -> None:
        super().__init__(cursor_type="row", zebra_stripes=False)
        self.marked: list[str] = []
        self.words = ""
        self._by, self._turned = "started", False
        self._runs: dict[str, ListedRun] = {}
        self._is_wide: bool | None = None

    @property
    def chosen(self) -> ListedRun | None:
        """The run under the cursor."""
        if not self.row_count or not self.is_valid_row_index(self.cursor_row):
            return None
        return self._runs.get(str(self.coordinate_to_cell_key(Coordinate(self.cursor_row, 0)).row_key.value))

    @property
    def total(self) -> int:
        """How many runs there are, shown or not."""
        return len(self._runs)

    def get(self, run: str) -> ListedRun | None:
        """The run with this id."""
        return self._runs.get(run)

    # -- what is shown --------------------------------------------------------------------------------------------

    def fit(self, *, wide: bool) -> None:
        """Show the columns that fit the terminal."""
        if wide != self._is_wide:
            self._is_wide = wide
            self._rebuild()

    def _rebuild(self) -> None:
        chosen = self.chosen
        self.clear(columns=True)
        for title, width in self._titles:
            self.add_column(self._title(title), width=width, key=title)
        self._fill(chosen)

    def put(self, one: ListedRun) -> None:
        """Add a run, last until :meth:`lay_out`, or update its line."""
        is_new = one.run.id not in self._runs
        self._runs[one.run.id] = one
        if one.run.id in self.rows:
            for (column, _), cell in zip(self._titles, self._cells(one), strict=True):
                if self.get_cell(one.run.id, column) != cell:
                    self.update_cell(one.run.id, column, cell)
        elif is_new and matches(one, self.words):
            self.add_row(*self._cells(one), key=one.run.id)

    def keep_only(self, runs: Iterable[str]) -> None:
        """Remove all other runs."""
        kept = set(runs)
        for gone in self._runs.keys() - kept:
            del self._runs[gone]
            if gone in self.rows:
                self.remove_row(gone)
        self.marked = [run for run in self.marked if run in kept]

    def lay_out(self) -> None:
        """Show the runs that match the filter, in order, with the cursor on the same run."""
        shown = [key.value for key in self.rows]
        if shown != [one.run.id for one in self._wanted()]:
            self._fill(self.chosen)
        self.post_message(self.Rearranged())

    def _wanted(self) -> list[ListedRun]:
        found = (one for one in self._runs.values() if matches(one, self.words))
        return sort_runs(found, self._by, reverse=self._turned)

    def _fill(self, chosen: ListedRun | None) -> None:
        self.clear()
        for one in self._wanted():
            self.add_row(*self._cells(one), key=one.run.id)
        if chosen is not None and chosen.run.id in self.rows:
            self.move_cursor(row=self.get_row_index(chosen.run.id))

    # -- marks and order ------------------------------------------------------------------------------------------

    def mark(self, run: str) -> None:
        """Mark a run, or remove its mark."""
        if run in self.marked:
            self.marked.remove(run)
        else:
            self.marked.append(run)
        self.put(self._runs[run])

    def unmark(self) -> None:
        """Remove all marks."""
        marked, self.marked = self.marked, []
        for run in marked:
            self.put(self._runs[run])

    def sort_by(self, column: str) -> None:
        """Sort by a column; the second time in reverse."""
        self._by, self._turned = column, column == self._by and not self._turned
        self._rebuild()  # the headings show the order
        self.post_message(self.Rearranged())

    def sort_by_neighbor(self, by: int) -> None:
        """Sort by the next column to the right, or with -1 to the left."""
        names = [name for name, _ in self._titles]
        here = names.index(self._by) if self._by in names else -1
        self.sort_by(names[(here + by) % len(names)])

    def turn(self) -> None:
        """Reverse the order."""
        self.sort_by(self._by)

    @on(DataTable.HeaderSelected)
    def _sort_by_clicked(self, event: DataTable.HeaderSelected) -> None:
        event.stop()
        self.sort_by(str(event.column_key.value))

    # -- columns and cells ----------------------------------------------------------------------------------------

    @property
    def _titles(self) -> tuple[tuple[str, int], ...]:
        return _WIDE_COLUMNS if self._is_wide else _COLUMNS

    def _title(self, name: str) -> Text:
        descending = ORDERS[name].descending != self._turned
        return Text(f"{name} {GLYPHS.down if descending else GLYPHS.up}" if name == self._by else name)

    def _cells(self, one: ListedRun) -> list[Text]:
        summary = one.summary
        colors = self.app.theme_variables
        sign, color = _LOOKS[summary.state]
        mark = (f"{GLYPHS.checked} ", f"bold {colors['accent']}") if one.run.id in self.marked else "  "
        cells = [
            Text("reading", style="dim") if summary.is_open else Text(f"{sign} {summary.state}", style=colors[color]),
            Text.assemble(mark, (plain(one.name), "bold"), overflow="ellipsis", no_wrap=True),
            Text(run_facts.steps(summary, room=8)),
            Text(run_facts.loss(summary.loss)),
            Text(run_facts.perplexity(summary)),
            Text(datetime.fromtimestamp(summary.started).strftime("%m-%d %H:%M") if summary.started else ""),
            Text(plain(short_name(summary.model)), overflow="ellipsis", no_wrap=True),
            Text(plain(one.tags), style=colors["text-muted"], overflow="ellipsis", no_wrap=True),
        ]
        return cells[: len(self._titles)]


class FilterField(Input):
    """The filter of a table. While it has the focus the table shows what it finds.

    Args:
        table: takes the focus when the filter is done.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,down", "settle", "Back to runs", key_display=ENTER, id="filter.settle"),
    ]

    def __init__(self, table: RunTable) -> None:
        super().__init__(placeholder="name, model, state or #tag", compact=True, select_on_focus=False)
        self._table = table

    def action_settle(self) -> None:
        """Keep the filter and go to the table."""
        # Not focus(), which takes a moment: the next key is for the table.
        self.screen.set_focus(self._table)
