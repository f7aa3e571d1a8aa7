"""Runs: what was trained here, from the journals; open one, use its recipe again, chat with it."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import DataTable

from screens import run_facts, run_words
from screens.messages import JournalGrew, RunSelected, StatusChanged
from screens.replies import RepliesScreen
from screens.story import Story, can_go_on
from screens.widgets.facts import Facts
from screens.widgets.glyphs import GLYPHS
from screens.widgets.header import short_name
from screens.widgets.loss_chart import Curve, LossChart
from screens.widgets.pane import beside
from screens.widgets.plain import plain, plain_content
from screens.widgets.quiet import QuietPane, Words, entitle
from workbench.errors import WorkbenchError
from workbench.runs.folder import RunFolder, RunSummary, all_runs, summarise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from textual import events
    from textual.app import ComposeResult
    from textual.widget import Widget

    from workbench.paths import Home

# Runs summed up in one go, off the event loop, before their lines are shown: the first screenful, then more at a time,
# for the table paints itself anew for each batch.
_FIRST_BATCH = 30
_BATCH = 120

# Title and width in cells; fixed, so that a long history need not be measured. The model needs the wider terminal.
_COLUMNS = (("state", 13), ("run", 14), ("steps", 8), ("loss", 6), ("perplexity", 13), ("started", 11))
_WIDE_COLUMNS = (*_COLUMNS, ("model", 36))

# Mark and colour of the theme; the word says it too.
_LOOKS = {
    "finished": (GLYPHS.dot, "success"),
    "running": (GLYPHS.half, "accent"),
    "stopped": (GLYPHS.ring, "foreground"),
    "failed": (GLYPHS.dot, "error"),
    "interrupted": (GLYPHS.half, "warning"),
    "new": (GLYPHS.ring, "foreground"),
}


class RunTable(DataTable[Text]):
    """The history, a line a run."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter", "select_cursor", "Open", id="runs.enter", tooltip="Show its curve, its figures and its recipe"
        ),
    ]


class RunsPane(QuietPane):
    """The history, or one run of it."""

    NAME = "Runs"
    GUIDE = (
        "Every run of this workbench, the newest first, with what its journal says of it. Enter shows its curve, its "
        "figures and its recipe; r takes its recipe in hand for the next run; c opens Chat with it; e exports it; j "
        "judges it on held-out records and writes its report; g lets one go on that was interrupted, stopped or "
        "failed. Perplexity is that of the held-out records: of the base before, of the adapter after."
    )
    DEFAULT_CSS = beside(__file__)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open", id="runs.open", tooltip="Show its curve, its figures and its recipe"),
        Binding("g", "go_on", "Go on", id="runs.go_on", tooltip="Train it further, from its last checkpoint"),
        Binding("r", "reuse", "Reuse recipe", id="runs.reuse", tooltip="Take its recipe in hand"),
        Binding("c", "chat", "Chat", id="runs.chat", tooltip="Talk to its adapter"),
        Binding("v", "replies", "Replies", id="runs.replies", tooltip="How its sampled replies changed"),
        Binding("e", "export", "Export", id="runs.export", tooltip="Merged, GGUF, Ollama, a server, the hub, a script"),
        Binding("j", "judge", "Evaluate", id="runs.judge", tooltip="Held-out figures and replies of base and adapter"),
        Binding("escape", "back", "Back", id="runs.back", tooltip="To the history"),
    ]

    def __init__(self, **names: Any) -> None:
        super().__init__(**names)
        self._folders: dict[str, RunFolder] = {}
        self._summaries: dict[str, RunSummary] = {}
        self._known: dict[str, tuple[int, int]] = {}
        self._story: Story | None = None
        self._reading = asyncio.Lock()

    def compose(self) -> ComposeResult:
        with Vertical(id="history"):
            yield Words(id="none")
            yield RunTable(cursor_type="row", zebra_stripes=False)
            yield Words(id="line")
        with VerticalScroll(id="one"):
            with Vertical(id="curve"):
                yield LossChart()
                yield Facts(stacked=True, id="facts")
            with VerticalScroll(id="recipe"):
                yield Words(id="yaml")

    def on_mount(self) -> None:
        self.query_one("#none", Words).show(
            Content.assemble(
                ("No run yet. ", "bold"),
                ("Press 5", "bold $accent"),
                (", then Enter, to fine-tune the model in hand.", ""),
            )
        )
        self.query_one(LossChart).border_title = "loss over steps"
        self.query_one("#recipe").border_title = "recipe"
        # The history may be read before the pane has its size.
        self._fit(self.app.size.width)

    def on_resize(self, event: events.Resize) -> None:
        self._fit(event.size.width)

    def _fit(self, width: int) -> None:
        """The columns that there is room for."""
        table = self.query_one(RunTable)
        narrow = width < 100
        if table.columns and narrow == self.has_class("-narrow"):
            return
        self.set_class(narrow, "-narrow")
        chosen = self._chosen
        table.clear(columns=True)
        for title, cells in _COLUMNS if narrow else _WIDE_COLUMNS:
            table.add_column(title, width=cells, key=title)
        for name in self._folders:
            if name in self._summaries:
                table.add_row(*self._cells(self._summaries[name]), key=name)
        if chosen:
            table.move_cursor(row=table.get_row_index(chosen))

    # -- what the app tells ---------------------------------------------------------------------------------------

    def first_focus(self) -> Widget:
        if self._story is None:
            return self.query_one(RunTable)
        # On a narrow terminal all of a run scrolls, on a wide one the recipe does.
        return self.query_one("#one" if self.has_class("-narrow") else "#recipe")

    def on_shown(self) -> None:
        self.run_worker(self._read_history())
        if self._story is not None:
            self.run_worker(self._read_story(self._story))

    @on(StatusChanged)
    def _engine_changed(self, message: StatusChanged) -> None:
        run = message.status.run if message.status else None
        if run not in self._folders or run is None:
            self.run_worker(self._read_history())

    @on(JournalGrew)
    async def _run_went_on(self, message: JournalGrew) -> None:
        summary = self.session.summary
        if summary is not None and summary.id == message.run and message.run in self._folders:
            self._show_row(summary)
        if self._story is not None and self._story.run.id == message.run:
            await self._story.add(message.events)
            self._show_story(self._story)

    # -- the history ----------------------------------------------------------------------------------------------

    async def _read_history(self) -> None:
        """Sum up what is new or has changed, a few runs at a time."""
        async with self._reading:
            found = await asyncio.to_thread(_changed_runs, self.session.home, self._known)
            if not self.is_attached:
                return
            self._folders = {run.id: run for run in found.runs}
            self._known = found.known
            self.set_class(not found.runs, "-none")
            self._forget_the_gone()
            for batch in _batches(found.changed):
                summaries = await asyncio.to_thread(_summaries, batch)
                if not self.is_attached:
                    return
                for summary in summaries:
                    self._show_row(summary)
            self._sort()
            await self._read_the_long_ones(found.changed)
            if not self.is_attached:
                return
            self._show_line()
            self.refresh_bindings()

    async def _read_the_long_ones(self, runs: Sequence[RunFolder]) -> None:
        """So far there is a glance at each long journal; its line is made exact when all others are there."""
        for run in runs:
            if run.id in self._summaries and self._summaries[run.id].is_rough:
                summary = await asyncio.to_thread(summarise, run)
                if not self.is_attached:
                    return
                self._show_row(summary)

    def _forget_the_gone(self) -> None:
        table = self.query_one(RunTable)
        for name in self._summaries.keys() - self._folders.keys():
            del self._summaries[name]
            table.remove_row(name)

    def _show_row(self, summary: RunSummary) -> None:
        table = self.query_one(RunTable)
        cells = self._cells(summary)
        if summary.id in self._summaries and summary.id in table.rows:
            for (column, _), cell in zip(_WIDE_COLUMNS, cells, strict=False):
                if table.get_cell(summary.id, column) != cell:
                    table.update_cell(summary.id, column, cell)
        else:
            table.add_row(*cells, key=summary.id)
        self._summaries[summary.id] = summary
        if summary.id == self._chosen:
            self._show_line()

    def _sort(self) -> None:
        """Newest first; a new run was added at the end."""
        table = self.query_one(RunTable)
        wanted = list(self._folders)
        if [key.value for key in table.rows] != wanted:
            chosen = self._chosen
            order = {name: place for place, name in enumerate(wanted)}
            table.sort("run", key=lambda cell: order.get(str(cell), len(order)))
            if chosen:
                table.move_cursor(row=table.get_row_index(chosen))

    def _cells(self, summary: RunSummary) -> list[Text]:
        mark, colour = _LOOKS[summary.state]
        state = Text(f"{mark} {summary.state}", style=self.app.theme_variables[colour])
        cells = [
            Text("reading", style="dim") if summary.is_open else state,
            Text(plain(summary.id), style="bold"),
            Text(run_facts.steps(summary, room=8)),
            Text(run_facts.loss(summary.loss)),
            Text(run_facts.perplexity(summary)),
            Text(datetime.fromtimestamp(summary.started).strftime("%m-%d %H:%M") if summary.started else ""),
            Text(plain(short_name(summary.model))),
        ]
        return cells[: len(self.query_one(RunTable).columns)]

    @property
    def _chosen(self) -> str | None:
        """The id of the run in hand."""
        if self._story is not None:
            return self._story.run.id
        table = self.query_one(RunTable)
        if not table.row_count or not table.is_valid_row_index(table.cursor_row):
            return None
        return table.coordinate_to_cell_key((table.cursor_row, 0)).row_key.value  # type: ignore[arg-type]

    @on(DataTable.RowHighlighted)
    def _show_line(self) -> None:
        """What the columns have no room for: the model, and why it ended."""
        summary = self._summaries.get(self._chosen or "")
        if summary is not None:
            parts = [short_name(summary.model), summary.reason if summary.state not in ("running", "finished") else ""]
            parts.append("g goes on" if can_go_on(summary) else "")
            text = f" {GLYPHS.separator} ".join(plain(part) for part in parts if part)
            self.query_one("#line", Words).show(plain_content(text))
        self.refresh_bindings()

    # -- what the user does ---------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        match action:
            case "open":
                return self._story is None and self._chosen is not None
            case "back":
                return self._story is not None
            case "reuse":
                return self._chosen is not None
            case "go_on":
                status = self.session.status
                chosen = self._summary_in_hand
                return (
                    chosen is not None
                    and can_go_on(chosen)
                    and (None if status is not None and status.state != "idle" else True)
                )
            case "replies":
                return self._story is not None and bool(self._story.samples)
            case "export" | "judge":
                return self._chosen is not None
            case "chat":
                folder = self._folders.get(self._chosen or "")
                return folder is not None and ((folder.adapter / "adapter_config.json").is_file() or None)
        return True

    @on(DataTable.RowSelected)
    def action_open(self) -> None:
        """Show the run in hand."""
        folder = self._folders.get(self._chosen or "")
        if folder is not None:
            self._story = Story(folder)
            self.query_one(LossChart).show((), nothing="Reading its journal …")
            self.query_one("#facts", Facts).show(())
            entitle(self.query_one("#facts"), folder.id)
            self.query_one("#yaml", Words).show(_recipe_text(folder.recipe_file))
            self.set_class(True, "-open")
            self.first_focus().focus()
            self.run_worker(self._read_story(self._story), group="story")

    def action_back(self) -> None:
        """To the history."""
        self._story = None
        self.workers.cancel_group(self, "story")  # a long journal may still be read
        self.set_class(False, "-open")
        self.first_focus().focus()
        self.refresh_bindings()

    @property
    def _summary_in_hand(self) -> RunSummary | None:
        return self._story.summary if self._story is not None else self._summaries.get(self._chosen or "")

    async def action_go_on(self) -> None:
        """Let the run in hand go on, and watch it on Train."""
        from screens.train import TrainPane

        folder = self._folders[self._chosen or ""]
        await self.workbench.action_show_tab("train")
        pane = self.workbench.pane_in_front
        if isinstance(pane, TrainPane):
            pane.resume(folder)

    def action_replies(self) -> None:
        """How the replies to the fixed prompts changed."""
        if self._story is not None:
            self.app.push_screen(RepliesScreen(self._story))

    def action_reuse(self) -> None:
        """Take the recipe of the run in hand."""
        folder = self._folders[self._chosen or ""]
        try:
            recipe = folder.recipe()
        except WorkbenchError as error:
            self.workbench.show_error(error)
            return
        self.workbench.set_recipe(recipe.as_dict())
        self.notify(f"The recipe of {plain(folder.id)} is in hand. 5, then Enter, runs it again.", markup=False)

    def action_export(self) -> None:
        """Take the run in hand elsewhere."""
        from screens.export_dialog import ExportDialog

        self.app.push_screen(ExportDialog(self.session.home, self._folders[self._chosen or ""]))

    def action_judge(self) -> None:
        """Judge the run in hand on held-out records."""
        from screens.evaluation import EvaluationScreen

        self.app.push_screen(EvaluationScreen(self._folders[self._chosen or ""]))

    async def action_chat(self) -> None:
        """Talk to the run in hand."""
        run = self._chosen
        await self.workbench.action_show_tab("chat")
        pane = self.workbench.pane_in_front
        if run is not None and pane is not None:
            pane.post_message(RunSelected(run))

    # -- one run --------------------------------------------------------------------------------------------------

    async def _read_story(self, story: Story) -> None:
        def show() -> None:
            if story is self._story and self.is_attached:
                self._show_story(story)

        await story.catch_up(show)
        show()

    def _show_story(self, story: Story) -> None:
        entitle(self.query_one(LossChart), run_words.title_of_curve(story))
        self.query_one(LossChart).show(
            [Curve("train", story.train), Curve("eval", story.eval, marked=True)],
            end=story.summary.max_steps,
            nothing="It has no step in its journal.",
        )
        self.query_one("#facts", Facts).show(run_facts.facts(story))
        self.refresh_bindings()


class _Found:
    """The runs there are, newest first, and those of them that are new or have changed."""

    def __init__(self, runs: list[RunFolder], known: dict[str, tuple[int, int]]) -> None:
        self.runs = runs
        self.known = {run.id: _mark(run.journal) for run in runs}
        self.changed = [run for run in runs if known.get(run.id) != self.known[run.id] or not self.known[run.id][0]]


def _changed_runs(home: Home, known: dict[str, tuple[int, int]]) -> _Found:
    return _Found(all_runs(home), known)


def _mark(journal: Path) -> tuple[int, int]:
    """Size and time of a journal; it is appended to only, so these tell whether it has to be read again."""
    try:
        stat = journal.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _batches(runs: Sequence[RunFolder]) -> Iterator[Sequence[RunFolder]]:
    yield runs[:_FIRST_BATCH]
    for start in range(_FIRST_BATCH, len(runs), _BATCH):
        yield runs[start : start + _BATCH]


def _summaries(runs: Sequence[RunFolder]) -> list[RunSummary]:
    return [summarise(run, soon=True) for run in runs]


def _recipe_text(path: Path) -> Content:
    try:
        return plain_content(path.read_text(encoding="utf-8", errors="replace"), lines=True)
    except OSError as error:
        return plain_content(f"The recipe cannot be read: {error.strerror}.")
