"""Runs: the history of this home, from the journals. Open a run, compare several, reuse a recipe, chat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from screens.charts.keys import chart_keys
from screens.messages import JournalGrew, StatusChanged
from screens.runs.actions import RunActions
from screens.runs.columns_dialog import RunColumnsDialog
from screens.runs.history_view import HistoryView
from screens.runs.page import RunPage
from screens.runs.table import COLUMNS
from screens.shell.sampled_replies import RepliesScreen
from screens.widgets.key_texts import keyed
from screens.widgets.pane import Pane, beside
from screens.widgets.sizes import NARROW_BELOW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.app import ComposeResult
    from textual.widget import Widget

    from workbench.runs.library.listing import ListedRun
    from workbench.runs.live_run import LiveRun


class RunsPane(Pane):
    """The history, or one run of it.

    Attributes:
        shown_run: the open run; None while the list is shown.
    """

    NAME = "Runs"
    GUIDE = (
        "All runs, newest first. {runs.open} opens a run: curve, metrics and recipe. {runs.mark} marks runs and "
        "{runs.compare} compares the marked ones: curves, recipe differences, results. {runs.filter} filters; "
        "{runs.sort} and {runs.sort_back} sort by another column, as a click on its heading does. {runs.reuse} loads "
        "a run's recipe and name as the current recipe: edit it in Adapter and Data, then press {tab.train} and "
        "{train.start} to start it as a new run. {runs.chat} chats with its adapter, {runs.export} exports it, "
        "{runs.evaluate} evaluates base vs. adapter on held-out records and writes a report, {runs.resume} resumes an "
        "interrupted, stopped or failed run. {runs.rename} names it, {runs.tag} tags it, {runs.table} exports its "
        "metrics (CSV/Parquet), {runs.delete} moves it to the trash and {runs.undelete} restores it. The chart of an "
        "open run has the same keys as on Train. Perplexity is measured on held-out records: base → adapter."
    )
    DEFAULT_CSS = beside(__file__)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open", id="runs.open", tooltip="Show its curve, metrics and recipe"),
        Binding("space", "mark", "Mark", id="runs.mark", tooltip="Mark it for comparing, tagging or deleting"),
        Binding("o", "compare", "Compare", id="runs.compare", tooltip="Compare the marked runs"),
        Binding(
            "slash", "filter", "Filter", key_display="/", id="runs.filter", tooltip="Filter by name, model, state, #tag"
        ),
        Binding(
            "greater_than_sign", "sort(1)", "Sort", key_display=">", id="runs.sort", tooltip="Sort by the next column"
        ),
        Binding(
            "less_than_sign",
            "sort(-1)",
            "Sort back",
            show=False,
            key_display="<",
            id="runs.sort_back",
            tooltip="Sort by the previous column",
        ),
        Binding(
            "exclamation_mark",
            "turn",
            "Reverse sort",
            show=False,
            key_display="!",
            id="runs.turn",
            tooltip="Reverse the sort order",
        ),
        Binding("g", "resume", "Resume", id="runs.resume", tooltip="Resume training from its last checkpoint"),
        Binding("r", "reuse", "Reuse recipe", id="runs.reuse", tooltip="Load its recipe as the current one"),
        Binding("c", "chat", "Chat", id="runs.chat", tooltip="Chat with its adapter"),
        Binding("v", "replies", "Replies", id="runs.replies", tooltip="Show its sampled replies step by step"),
        Binding(
            "E",
            "export",
            "Export",
            key_display="E",
            id="runs.export",
            tooltip="Export: merged, GGUF, Ollama, server, hub, script",
        ),
        Binding(
            "e", "evaluate", "Evaluate", id="runs.evaluate", tooltip="Evaluate base vs. adapter on held-out records"
        ),
        Binding(
            "A",
            "serve",
            "Serve",
            show=False,
            key_display="A",
            id="runs.serve",
            tooltip="Serve its adapter and base over an OpenAI-compatible API",
        ),
        Binding(
            "N", "rename", "Name", key_display="N", id="runs.rename", tooltip="Name the run; its id stays the same"
        ),
        Binding("T", "tag", "Tags", key_display="T", id="runs.tag", tooltip="Tag the marked runs, or this one"),
        Binding("w", "table", "Export metrics", id="runs.table", tooltip="Export its metrics (CSV/Parquet)"),
        Binding("d", "delete", "Delete", id="runs.delete", tooltip="Move the marked runs, or this one, to the trash"),
        Binding("u", "undelete", "Undelete", id="runs.undelete", tooltip="Restore the last deletion"),
        Binding(
            "vertical_line",
            "columns",
            "Columns",
            show=False,
            key_display="|",
            id="runs.columns",
            tooltip="Choose the columns: r, lr, targets, data, duration, tok/s, peak, best loss …",
        ),
        *chart_keys(arrows_first=True),
        Binding("escape", "back", "Back", id="runs.back", tooltip="Back to the run list"),
        Binding("escape", "clear", "Clear", id="runs.clear", tooltip="Clear the filter, then the marks"),
    ]

    def __init__(self, **names: Any) -> None:
        super().__init__(**names)
        self.shown_run: LiveRun | None = None
        self._history = HistoryView(self.session.home)
        self._page = RunPage()
        self._actions = RunActions(self.workbench, self._history.read_again)

    def compose(self) -> ComposeResult:
        yield self._history
        yield self._page

    def on_mount(self) -> None:
        if (columns := self.session.settings.run_columns) is not None:
            self._history.table.choose_columns(columns)
        # The history may be read before the pane has its size.
        self._fit(self.app.size.width)

    def on_resize(self, event: events.Resize) -> None:
        self._fit(event.size.width)

    def _fit(self, width: int) -> None:
        self.set_class(width < NARROW_BELOW, "-narrow")
        # One cell is kept for the scrollbar, whether it is shown yet or not.
        self._history.table.fit(width - 1)

    def first_focus(self) -> Widget:
        if self.shown_run is None:
            return self._history.table
        return self._page.first_focus(narrow=self.has_class("-narrow"))

    # -- messages of the app --------------------------------------------------------------------------------------

    def on_shown(self) -> None:
        self.run_worker(self._history.read_again())
        if self.shown_run is not None:
            self.run_worker(self._read_journal(self.shown_run), group="journal")

    @on(StatusChanged)
    def _engine_changed(self, message: StatusChanged) -> None:
        run = message.status.run if message.status else None
        if run is None or self._history.table.get(run) is None:
            self.run_worker(self._history.read_again())

    @on(JournalGrew)
    def _journal_grew(self, message: JournalGrew) -> None:
        summary = self.session.summary
        if summary is not None and summary.id == message.run:
            self._history.update_summary(summary)
        if self.shown_run is not None and self.shown_run is self.session.live:
            self._show_run(self.shown_run)

    # -- the selected runs ----------------------------------------------------------------------------------------

    @property
    def selected(self) -> ListedRun | None:
        """The open run, else the one under the cursor."""
        table = self._history.table
        return table.get(self.shown_run.run.id) if self.shown_run is not None else table.chosen

    @property
    def subjects(self) -> Sequence[ListedRun]:
        """The marked runs; without marks the selected one."""
        if self.shown_run is None and self._history.table.marked:
            return self._history.marked
        one = self.selected
        return [one] if one is not None else []

    @on(HistoryView.Changed)
    def _history_changed(self) -> None:
        one = self.selected
        if self.shown_run is not None and one is None:
            self.action_back()  # the open run was deleted
        elif self.shown_run is not None and one is not None:
            self._page.name_it(one.name)
        self._history.show_facts(one)
        if self.is_shown and self.screen.focused is None:
            self.take_focus()  # the table had it, and there are no runs to show
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        is_open, one = self.shown_run is not None, self.selected
        match action:
            case "open" | "mark":
                return not is_open and one is not None
            case "filter":
                return not is_open and self._history.table.total > 0 and not self._history.is_filtering
            case "compare" | "sort" | "turn" | "columns":
                return not is_open and self._history.table.total > 0
            case "clear":
                return not is_open and self._history.can_clear and not self._history.is_filtering
            case "undelete":
                return self._actions.can_undelete
            case "back" | "chart":
                return is_open and not self.screen.is_modal
            case "resume":
                return self._can_resume(one)
            case "replies":
                return self.shown_run is not None and bool(self.shown_run.replay.samples)
            case "chat" | "serve":
                return one is not None and ((one.run.adapter / "adapter_config.json").is_file() or None)
            case "reuse" | "export" | "evaluate" | "rename" | "tag" | "table" | "delete":
                return one is not None
        return True

    def _can_resume(self, one: ListedRun | None) -> bool | None:
        summary = (
            self.shown_run.replay.summary if self.shown_run is not None else one.summary if one is not None else None
        )
        if summary is None or not summary.can_be_resumed:
            return False
        status = self.session.status
        return None if status is not None and status.state != "idle" else True

    # -- the list -------------------------------------------------------------------------------------------------

    def action_mark(self) -> None:
        """Mark the run under the cursor, or remove its mark, and move to the next."""
        self._history.mark()

    def action_compare(self) -> None:
        """Compare the marked runs; with one mark, that one and the selected one."""
        from screens.runs.compare import MOST, CompareScreen

        marked, one = self._history.marked, self._history.table.chosen
        if len(marked) == 1 and one is not None and one.run.id != marked[0].run.id:
            marked.append(one)
        if len(marked) < 2:
            self.notify(
                keyed("Mark two or more runs with {runs.mark}, then press {runs.compare} to compare them."), timeout=5
            )
        elif len(marked) > MOST:
            self.notify(f"{len(marked)} runs are marked; a chart compares at most {MOST}.", timeout=5)
        else:
            self.app.push_screen(CompareScreen([one.run for one in marked]))

    def action_sort(self, by: int) -> None:
        """Sort by the next or the previous column."""
        self._history.table.sort_by_neighbor(by)

    def action_turn(self) -> None:
        """Reverse the sort order."""
        self._history.table.turn()

    def action_columns(self) -> None:
        """Choose the columns of the list."""

        def chosen(names: list[str] | None) -> None:
            if names is not None:
                self._history.table.choose_columns(names or None)
                self.session.remember(run_columns=names or None)

        table = self._history.table
        self.app.push_screen(RunColumnsDialog([column.key for column in COLUMNS], table.shown_columns), chosen)

    def select_run(self, run: str) -> None:
        self._history.filter_by(run)

    def action_filter(self) -> None:
        """Type a filter."""
        self._history.open_filter()

    def action_clear(self) -> None:
        """Clear the filter, then the marks."""
        self._history.clear()

    # -- one run --------------------------------------------------------------------------------------------------

    @on(DataTable.RowSelected)
    def action_open(self) -> None:
        """Show the selected run."""
        from workbench.runs.live_run import LiveRun

        if (one := self._history.table.chosen) is not None:
            watched = self.session.live
            self.shown_run = watched if watched is not None and watched.run.id == one.run.id else LiveRun(one.run)
            self._page.begin(one.run, one.name)
            self.set_class(True, "-open")
            self.first_focus().focus()
            self.run_worker(self._read_journal(self.shown_run), group="journal")

    def action_chart(self, action: str) -> None:
        """Change the view of the chart."""
        self._page.use_chart(action)

    def action_back(self) -> None:
        """Go back to the list."""
        self.shown_run = None
        self.workers.cancel_group(self, "journal")  # a long journal may still be read
        self.set_class(False, "-open")
        self.first_focus().focus()
        self.refresh_bindings()

    async def _read_journal(self, live: LiveRun) -> None:
        def show() -> None:
            if live is self.shown_run:
                self._show_run(live)

        await live.catch_up(show)
        show()

    def _show_run(self, live: LiveRun) -> None:
        self._page.show(live.replay)
        self.refresh_bindings()

    def action_replies(self) -> None:
        """Show the sampled replies step by step."""
        if self.shown_run is not None:
            self.app.push_screen(RepliesScreen(self.shown_run))

    # -- actions on the selected runs -----------------------------------------------------------------------------

    def action_rename(self) -> None:
        """Name the selected run."""
        if (one := self.selected) is not None:
            self._actions.rename(one)

    def action_tag(self) -> None:
        """Tag the marked runs, else the selected one."""
        if subjects := self.subjects:
            self._actions.tag(subjects)

    def action_delete(self) -> None:
        """Move the marked runs, else the selected one, to the trash."""
        if subjects := self.subjects:
            self._actions.delete(subjects)

    def action_undelete(self) -> None:
        """Restore the last deletion."""
        self._actions.undelete()

    def action_table(self) -> None:
        """Export the metrics of the selected run."""
        if (one := self.selected) is not None:
            self._actions.export_metrics(one)

    def action_export(self) -> None:
        """Export the selected run."""
        if (one := self.selected) is not None:
            self._actions.export(one)

    def action_evaluate(self) -> None:
        """Evaluate the selected run on held-out records."""
        if (one := self.selected) is not None:
            self._actions.evaluate(one)

    def action_serve(self) -> None:
        """Serve the selected run's adapter and base over an API."""
        if (one := self.selected) is not None:
            self._actions.serve(one)

    def action_reuse(self) -> None:
        """Load the selected run's recipe as the current one."""
        if (one := self.selected) is not None:
            self._actions.reuse(one)

    async def action_resume(self) -> None:
        """Resume the selected run and watch it on Train."""
        if (one := self.selected) is not None:
            await self._actions.resume(one)

    async def action_chat(self) -> None:
        """Chat with the selected run."""
        await self._actions.chat(self.selected)
