"""The table of all runs, one per line: sorted, filtered, with marks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from rich.text import Text
from textual import on
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.message import Message
from textual.widgets import DataTable, Input

from screens.runs import facts as run_facts
from screens.widgets.glyphs import ENTER, GLYPHS
from screens.widgets.lazy_table import Column, fitting_columns
from screens.widgets.plain import plain
from workbench.runs.library.listing import ORDERS, ListedRun, matches, sort_runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# In the order of the screen; the widths are fixed, so that Textual need not measure a long history. Without a choice of
# the user those with the highest numbers drop out first.
COLUMNS = (
    Column("state", "state", 13),
    Column("run", "run", 16, is_flexible=True),
    Column("steps", "steps", 8, is_right=True, drop=1),
    Column("loss", "loss", 6, is_right=True, drop=2),
    Column("best loss", "best loss", 9, is_right=True, drop=9),
    Column("perplexity", "perplexity", 13, is_right=True, drop=3),
    Column("started", "started", 11, drop=4),
    Column("duration", "duration", 8, is_right=True, drop=11),
    Column("model", "model", 22, drop=5),
    Column("r", "r", 4, is_right=True, drop=7),
    Column("lr", "lr", 7, is_right=True, drop=8),
    Column("targets", "targets", 12, drop=13),
    Column("data", "data", 16, drop=14),
    Column("tok/s", "tok/s", 6, is_right=True, drop=10),
    Column("peak", "peak", 9, is_right=True, drop=12),
    Column("tags", "tags", 12, drop=6),
)
_ALWAYS = ("state", "run")
_GAP = 2

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
        self._room = 0
        self._chosen_columns: tuple[str, ...] | None = None

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

    def fit(self, room: int) -> None:
        """Show the columns that fit into so many cells."""
        if room != self._room:
            before, self._room = self._titles if self._room else (), room
            if self._titles != before:
                self._rebuild()

    @property
    def shown_columns(self) -> list[str]:
        """The columns that are shown, by their names."""
        return [name for name, _ in self._titles]

    def choose_columns(self, names: Sequence[str] | None) -> None:
        """Show these columns besides state and name, in this order, as far as there is room; None for the default."""
        self._chosen_columns = None if names is None else tuple(names)
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
        """The columns that are shown, with their widths."""
        known = {column.key: column for column in COLUMNS}
        columns: Sequence[Column] = COLUMNS
        if (chosen := self._chosen_columns) is not None:
            wanted = [*_ALWAYS, *(name for name in chosen if name in known and name not in _ALWAYS)]
            # The user's order says what may drop out: the last ones.
            columns = [replace(known[name], drop=max(0, at - 1)) for at, name in enumerate(wanted)]
        return tuple((column.key, width) for column, width in fitting_columns(columns, self._room, _GAP))

    def _title(self, name: str) -> Text:
        descending = ORDERS[name].descending != self._turned
        return Text(
            f"{name}{' ' if name in _ROOMY else ''}{GLYPHS.down if descending else GLYPHS.up}"
            if name == self._by
            else name,
            justify="right" if name in _RIGHT else "left",
        )

    def _cells(self, one: ListedRun) -> list[Text]:
        return [self._cell(one, name) for name, _ in self._titles]

    def _cell(self, one: ListedRun, column: str) -> Text:
        summary, colors = one.summary, self.app.theme_variables
        match column:
            case "state":
                sign, color = _LOOKS[summary.state]
                if summary.is_state_unknown:
                    return Text("reading", style="dim")
                return Text(f"{sign} {summary.state}", style=colors[color])
            case "run":
                is_marked = one.run.id in self.marked
                mark = (f"{GLYPHS.checked} ", f"bold {colors['accent']}") if is_marked else "  "
                return Text.assemble(mark, (plain(one.name), "bold"), overflow="ellipsis", no_wrap=True)
            case "tags":
                return Text(plain(one.tags), style=colors["text-muted"], overflow="ellipsis", no_wrap=True)
        text = run_facts.column_text(one.summary, column)
        justify: Literal["left", "right"] = "right" if column in _RIGHT else "left"
        return Text(plain(text), justify=justify, overflow="ellipsis", no_wrap=True)


_RIGHT = frozenset(column.key for column in COLUMNS if column.is_right)
_ROOMY = frozenset(column.key for column in COLUMNS if column.width > len(column.title) + 1)


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
