"""Runs: what was trained here, from the journals; open one, compare some, use a recipe again, chat with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import DataTable, Input

from screens.messages import JournalGrew, ResumeAsked, RunSelected, StatusChanged
from screens.runs.actions import RunActions
from screens.runs.history import batches, changed_runs, listed, listed_exactly
from screens.runs.page import RunPage
from screens.runs.table import FilterField, RunTable
from screens.shell.delay import Delay
from screens.shell.header import short_name
from screens.shell.sampled_replies import RepliesScreen
from screens.widgets.glyphs import GLYPHS
from screens.widgets.line_painted import Words
from screens.widgets.pane import beside
from screens.widgets.plain import plain, plain_content
from workbench.errors import WorkbenchError
from workbench.runs.library.listing import ListedRun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.app import ComposeResult
    from textual.widget import Widget

    from workbench.runs.live_run import LiveRun
from workbench.runs.folder import RunFolder

# A filter is typed in a burst, and a long history takes a moment to be laid out anew.
_FILTER_SECONDS = 0.12


class RunsPane(RunActions):
    """The history, or one run of it."""

    NAME = "Runs"
    GUIDE = (
        "All runs, newest first. Enter opens a run: curve, metrics and recipe. Space marks runs "
        "and o compares the marked ones: curves, recipe differences, results. / filters; s, S or "
        "a click on a heading sorts. r loads a run's recipe and name as the current recipe: edit "
        "it in Adapter and Data, then press 5 and Enter to start it as a new run. c chats with "
        "its adapter, e exports it, j evaluates base vs. adapter on held-out records and writes "
        "a report, g resumes an interrupted, stopped or failed run. n names it, t tags it, w "
        "exports its metrics (CSV/Parquet), d moves it to the trash and u restores it. "
        "Perplexity is measured on held-out records: base → adapter."
    )
    DEFAULT_CSS = beside(__file__)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open", id="runs.open", tooltip="Show its curve, metrics and recipe"),
        Binding("space", "mark", "Mark", id="runs.mark", tooltip="Mark it for comparing, tagging or deleting"),
        Binding("o", "compare", "Compare", id="runs.compare", tooltip="Compare the marked runs"),
        Binding(
            "slash", "filter", "Filter", key_display="/", id="runs.filter", tooltip="Filter by name, model, state, #tag"
        ),
        Binding("s", "sort", "Sort", id="runs.sort", tooltip="Sort by the next column"),
        Binding("S", "turn", "Reverse sort", show=False, id="runs.turn", tooltip="Reverse the sort order"),
        Binding("g", "go_on", "Resume", id="runs.go_on", tooltip="Resume training from its last checkpoint"),
        Binding("r", "reuse", "Reuse recipe", id="runs.reuse", tooltip="Load its recipe as the current one"),
        Binding("c", "chat", "Chat", id="runs.chat", tooltip="Chat with its adapter"),
        Binding("v", "replies", "Replies", id="runs.replies", tooltip="Show its sampled replies step by step"),
        Binding("e", "export", "Export", id="runs.export", tooltip="Export: merged, GGUF, Ollama, server, hub, script"),
        Binding("j", "judge", "Evaluate", id="runs.judge", tooltip="Evaluate base vs. adapter on held-out records"),
        Binding("n", "rename", "Name", id="runs.rename", tooltip="Name the run; its id stays the same"),
        Binding("t", "tag", "Tags", id="runs.tag", tooltip="Tag the marked runs, or this one"),
        Binding("w", "table", "Export metrics", id="runs.table", tooltip="Export its metrics (CSV/Parquet)"),
        Binding("d", "delete", "Delete", id="runs.delete", tooltip="Move the marked runs, or this one, to the trash"),
        Binding("u", "undelete", "Undelete", id="runs.undelete", tooltip="Restore the last deletion"),
        Binding("escape", "back", "Back", id="runs.back", tooltip="Back to the run list"),
        Binding("escape", "clear", "Clear", id="runs.clear", tooltip="Clear the filter, then the marks"),
    ]

    def __init__(self, **names: Any) -> None:
        super().__init__(**names)
        self._known: dict[str, tuple[int, ...]] = {}
        self._live: LiveRun | None = None
        self._reading = asyncio.Lock()
        self._filter_delay = Delay(self, self._filter, _FILTER_SECONDS)

    def compose(self) -> ComposeResult:
        with Vertical(id="history"):
            yield Words(id="none")
            yield FilterField()
            yield RunTable()
            yield Words(id="line")
        yield RunPage(id="one")

    def on_mount(self) -> None:
        self.query_one("#none", Words).show(
            Content.assemble(
                ("No runs yet. ", "bold"),
                ("Press 5", "bold $accent"),
                (", then Enter, to fine-tune the current model.", ""),
            )
        )
        # The history may be read before the pane has its size.
        self._fit(self.app.size.width)

    def on_resize(self, event: events.Resize) -> None:
        self._fit(event.size.width)

    def _fit(self, width: int) -> None:
        self.set_class(width < 100, "-narrow")
        self._table.fit(wide=width >= 100)

    @property
    def _table(self) -> RunTable:
        return self.query_one(RunTable)

    # -- what the app tells ---------------------------------------------------------------------------------------

    def first_focus(self) -> Widget:
        if self._live is None:
            return self._table
        return self.query_one(RunPage).first_focus(narrow=self.has_class("-narrow"))

    def on_shown(self) -> None:
        self.run_worker(self.read_again())
        if self._live is not None:
            self.run_worker(self._read_journal(self._live), group="journal")

    @on(StatusChanged)
    def _engine_changed(self, message: StatusChanged) -> None:
        run = message.status.run if message.status else None
        if run is None or self._table.get(run) is None:
            self.run_worker(self.read_again())

    @on(JournalGrew)
    def _journal_grew(self, message: JournalGrew) -> None:
        summary, one = self.session.summary, self._table.get(message.run)
        if summary is not None and summary.id == message.run and one is not None:
            self._table.put(ListedRun(one.run, summary, one.label))
            self._show_line()
        if self._live is not None and self._live is self.session.live:
            self._show_run(self._live)

    # -- the history ----------------------------------------------------------------------------------------------

    async def read_again(self) -> None:
        """Sum up what is new or has changed, a few runs at a time."""
        async with self._reading:
            found = await asyncio.to_thread(changed_runs, self.session.home, self._known)
            if not self.is_attached:
                return
            self._known = found.known
            self.set_class(not found.runs, "-none")
            self._table.keep_only(found.known)
            if self._live is not None and self._live.run.id not in found.known:
                self.action_back()
            for batch in batches(found.changed):
                for summed in await asyncio.to_thread(listed, batch):
                    if not self.is_attached:
                        return
                    self._table.put(summed)
            self._table.lay_out()
            await self._read_the_long_ones(found.changed)
            if self._live is not None and (one := self.selected) is not None:
                self.query_one(RunPage).name_it(one.name)

    async def _read_the_long_ones(self, runs: Sequence[RunFolder]) -> None:
        """So far there is a glance at each long journal; its line is made exact when all others are there."""
        for run in runs:
            if (one := self._table.get(run.id)) is not None and one.summary.is_rough:
                exact = await asyncio.to_thread(listed_exactly, one.run)
                if not self.is_attached:
                    return
                self._table.put(exact)
                self._show_line()

    @property
    def selected(self) -> ListedRun | None:
        return self._table.get(self._live.run.id) if self._live is not None else self._table.chosen

    @property
    def subjects(self) -> Sequence[ListedRun]:
        one = self.selected
        if self._live is None and self._table.marked:
            return self._marked
        return [one] if one is not None else []

    @property
    def _marked(self) -> list[ListedRun]:
        return [one for run in self._table.marked if (one := self._table.get(run)) is not None]

    @on(DataTable.RowHighlighted)
    @on(RunTable.Rearranged)
    def _show_line(self) -> None:
        """What the columns have no room for: marks, its id and model and tags, and why it ended."""
        table, one = self._table, self.selected
        parts = [f"{len(table.marked)} marked, o compare" if table.marked else ""]
        if table.words:
            parts.append(f"{table.row_count} of {table.total}")
        if one is not None:
            summary = one.summary
            parts.append(one.run.id if one.name != one.run.id else "")
            parts.append(short_name(summary.model))
            parts.append(summary.reason if summary.state not in ("running", "finished") else "")
            parts += ["g resume" if summary.can_be_resumed else "", one.tags]
        text = f" {GLYPHS.separator} ".join(plain(part) for part in parts if part)
        self.query_one("#line", Words).show(plain_content(text))
        self.refresh_bindings()

    # -- marks, order, filter -------------------------------------------------------------------------------------

    def action_mark(self) -> None:
        """Mark the run under the cursor, or take its mark away, and go on to the next."""
        if (one := self._table.chosen) is not None:
            self._table.mark(one.run.id)
            self._table.action_cursor_down()
            self._show_line()

    def action_compare(self) -> None:
        """Compare the marked runs; with one mark, that one and the selected one."""
        from screens.runs.compare import MOST, CompareScreen

        marked, one = self._marked, self._table.chosen
        if len(marked) == 1 and one is not None and one.run.id != marked[0].run.id:
            marked.append(one)
        if len(marked) < 2:
            self.notify("Mark two or more runs with Space, then press o to compare them.", timeout=5)
        elif len(marked) > MOST:
            self.notify(f"{len(marked)} runs are marked; a chart compares at most {MOST}.", timeout=5)
        else:
            self.app.push_screen(CompareScreen([one.run for one in marked]))

    def action_sort(self) -> None:
        """Sort by the next column."""
        self._table.sort_by_next()

    def action_turn(self) -> None:
        """The other way round."""
        self._table.turn()

    def action_filter(self) -> None:
        """Type what is looked for."""
        self.add_class("-filter")
        self.query_one(FilterField).focus()

    @on(Input.Changed)
    def _filter_soon(self, event: Input.Changed) -> None:
        self._filter_delay.ask()

    def _filter(self) -> None:
        self._table.words = self.query_one(FilterField).value
        self._table.lay_out()
        self._hide_empty_filter()

    @on(FilterField.Settled)
    def _hide_empty_filter(self) -> None:
        field = self.query_one(FilterField)
        self.set_class(bool(field.value) or field.has_focus, "-filter")

    def action_clear(self) -> None:
        """No filter any more; without one, no marks."""
        field = self.query_one(FilterField)
        if field.value:
            field.action_clear()
        else:
            self._table.unmark()
            self._show_line()

    # -- what the user does ---------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        is_open, one = self._live is not None, self.selected
        match action:
            case "open" | "mark":
                return not is_open and one is not None
            case "filter":
                return not is_open and self._table.total > 0 and not self.query_one(FilterField).has_focus
            case "compare" | "sort" | "turn":
                return not is_open and self._table.total > 0
            case "clear":
                return not is_open and bool(self._table.words or self._table.marked)
            case "undelete":
                return self.can_undelete
            case "back":
                return is_open
            case "go_on":
                status = self.session.status
                chosen = (
                    self._live.replay.summary if self._live is not None else one.summary if one is not None else None
                )
                is_busy = status is not None and status.state != "idle"
                return chosen is not None and chosen.can_be_resumed and (None if is_busy else True)
            case "replies":
                return self._live is not None and bool(self._live.replay.samples)
            case "chat":
                return one is not None and ((one.run.adapter / "adapter_config.json").is_file() or None)
            case "reuse" | "export" | "judge" | "rename" | "tag" | "table" | "delete":
                return one is not None
        return True

    @on(DataTable.RowSelected)
    def action_open(self) -> None:
        """Show the selected run."""
        from workbench.runs.live_run import LiveRun

        if (one := self._table.chosen) is not None:
            watched = self.session.live
            self._live = watched if watched is not None and watched.run.id == one.run.id else LiveRun(one.run)
            self.query_one(RunPage).begin(one.run, one.name)
            self.set_class(True, "-open")
            self.first_focus().focus()
            self.run_worker(self._read_journal(self._live), group="journal")

    def action_back(self) -> None:
        """Back to the run list."""
        self._live = None
        self.workers.cancel_group(self, "journal")  # a long journal may still be read
        self.set_class(False, "-open")
        self.first_focus().focus()
        self.refresh_bindings()

    async def action_go_on(self) -> None:
        """Let the selected run go on, and watch it on Train."""
        if (one := self.selected) is not None:
            await self.workbench.action_show_tab("train")
            if (pane := self.workbench.pane_in_front) is not None:
                pane.post_message(ResumeAsked(one.run))

    def action_replies(self) -> None:
        """How the replies to the fixed prompts changed."""
        if self._live is not None:
            self.app.push_screen(RepliesScreen(self._live))

    def action_reuse(self) -> None:
        """Take the recipe of the selected run, its name too."""
        if (one := self.selected) is None:
            return
        try:
            recipe = one.run.recipe()
        except WorkbenchError as error:
            self.workbench.show_error(error)
            return
        self.workbench.set_recipe(recipe.as_dict())
        self.notify(f"Loaded the recipe of {plain(one.name)}. Press 5, then Enter, to run it again.", markup=False)

    def action_export(self) -> None:
        """Take the selected run elsewhere."""
        from screens.runs.export_dialog import ExportDialog

        if (one := self.selected) is not None:
            self.app.push_screen(ExportDialog(self.session.home, one.run))

    def action_judge(self) -> None:
        """Judge the selected run on held-out records."""
        from screens.runs.evaluation import EvaluationScreen

        if (one := self.selected) is not None:
            self.app.push_screen(EvaluationScreen(one.run))

    async def action_chat(self) -> None:
        """Talk to the selected run."""
        one = self.selected
        await self.workbench.action_show_tab("chat")
        pane = self.workbench.pane_in_front
        if one is not None and pane is not None:
            pane.post_message(RunSelected(one.run.id))

    # -- one run --------------------------------------------------------------------------------------------------

    async def _read_journal(self, live: LiveRun) -> None:
        def show() -> None:
            if live is self._live and self.is_attached:
                self._show_run(live)

        await live.catch_up(show)
        show()

    def _show_run(self, live: LiveRun) -> None:
        self.query_one(RunPage).show(live.replay)
        self.refresh_bindings()
