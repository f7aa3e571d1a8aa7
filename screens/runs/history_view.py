"""The list of all runs: read from disk, filtered, sorted, with marks."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from textual import on
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import DataTable, Input

from screens.runs.history import batches, changed_runs, listed, listed_exactly
from screens.runs.table import FilterField, RunTable
from screens.shell.header import short_name
from screens.widgets.delay import Delay
from screens.widgets.glyphs import GLYPHS
from screens.widgets.key_texts import key
from screens.widgets.paragraph import Paragraph
from screens.widgets.plain import plain, plain_content

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from workbench.runs.folder import RunFolder
    from workbench.runs.library.listing import ListedRun
    from workbench.runs.summary import RunSummary
    from workbench.storage.paths import Home

# A filter is typed in a burst, and laying out a long history takes a moment.
_FILTER_SECONDS = 0.12


class HistoryView(Vertical):
    """A table of runs with a filter above it and the facts of the selected run below it."""

    class Changed(Message):
        """Another run is selected or marked, or other runs are listed."""

    def __init__(self, home: Home) -> None:
        super().__init__(id="history")
        self._home = home
        self._known: dict[str, tuple[int, ...]] = {}
        self._reading = asyncio.Lock()
        self._filter_soon = Delay(self, self._apply_filter, _FILTER_SECONDS)
        self._table = RunTable()
        self._filter = FilterField(self._table)
        self._line = Paragraph(id="line")

    def compose(self) -> ComposeResult:
        hint = Paragraph(id="none")
        hint.show(
            Content.assemble(
                ("No runs yet. ", "bold"),
                (f"Press {key('tab.train')}", "bold $accent"),
                (f", then {key('train.start')}, to fine-tune the current model.", ""),
            )
        )
        yield hint
        yield self._filter
        yield self._table
        yield self._line

    # -- the runs -------------------------------------------------------------------------------------------------

    @property
    def table(self) -> RunTable:
        """The table, which takes the focus."""
        return self._table

    @property
    def marked(self) -> list[ListedRun]:
        """The marked runs, in the order they were marked."""
        return [one for run in self._table.marked if (one := self._table.get(run)) is not None]

    async def read_again(self) -> None:
        """Read the runs that are new or have changed, a few at a time."""
        async with self._reading:
            found = await asyncio.to_thread(changed_runs, self._home, self._known)
            self._known = found.known
            self.set_class(not found.runs, "-empty")
            self._table.keep_only(found.known)
            for batch in batches(found.changed):
                for one in await asyncio.to_thread(listed, batch):
                    self._table.put(one)
            self._table.lay_out()
            await self._read_long_journals(found.changed)

    async def _read_long_journals(self, runs: Sequence[RunFolder]) -> None:
        """Replace the summaries made from a sample of a long journal, once all others are there."""
        for run in runs:
            if (one := self._table.get(run.id)) is not None and one.summary.is_partial:
                self._table.put(await asyncio.to_thread(listed_exactly, one.run))
                self.post_message(self.Changed())

    def update_summary(self, summary: RunSummary) -> None:
        """Show newer figures of a listed run."""
        if (one := self._table.get(summary.id)) is not None:
            self._table.put(replace(one, summary=summary))
            self.post_message(self.Changed())

    def show_facts(self, one: ListedRun | None) -> None:
        """Show what the columns have no room for: marks, filter, and the run's id, model, tags and end."""
        table = self._table
        parts = [f"{len(table.marked)} marked, {key('runs.compare')} compare" if table.marked else ""]
        if table.words:
            parts.append(f"{table.row_count} of {table.total}")
        if one is not None:
            summary = one.summary
            parts.append(one.run.id if one.name != one.run.id else "")
            parts.append(short_name(summary.model))
            parts.append(summary.reason if summary.state not in ("running", "finished") else "")
            parts += [f"{key('runs.resume')} resume" if summary.can_be_resumed else "", one.tags]
        text = f" {GLYPHS.separator} ".join(plain(part) for part in parts if part)
        self._line.show(plain_content(text))

    @on(DataTable.RowHighlighted)
    @on(RunTable.Rearranged)
    def _table_changed(self) -> None:
        self.post_message(self.Changed())

    # -- marks and filter -----------------------------------------------------------------------------------------

    def mark(self) -> None:
        """Mark the run under the cursor, or remove its mark, and move to the next."""
        if (one := self._table.chosen) is not None:
            self._table.mark(one.run.id)
            self._table.action_cursor_down()
            self.post_message(self.Changed())

    @property
    def is_filtering(self) -> bool:
        """Whether the filter is being typed."""
        return self._filter.has_focus

    @property
    def can_clear(self) -> bool:
        """Whether there is a filter or a mark."""
        return bool(self._table.words or self._table.marked)

    def open_filter(self) -> None:
        """Let the user type a filter."""
        self.add_class("-filter")
        self._filter.focus()

    def filter_by(self, words: str) -> None:
        """Show only the runs with these words."""
        self._filter.value = words

    def clear(self) -> None:
        """Clear the filter; if there is none, the marks."""
        if self._filter.value:
            self._filter.value = ""
        else:
            self._table.unmark()
            self.post_message(self.Changed())

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._filter_soon.ask()

    def _apply_filter(self) -> None:
        self._table.words = self._filter.value
        self._table.lay_out()
        self._hide_empty_filter()

    @on(Input.Blurred)
    def _hide_empty_filter(self) -> None:
        self.set_class(bool(self._filter.value) or self._filter.has_focus, "-filter")
