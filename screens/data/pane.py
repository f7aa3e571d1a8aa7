"""Data: the dataset as a form, its records as they are fed to training, and its statistics."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content

from screens.data.dataset_figures import data_figures, histogram, notices
from screens.data.fields import data_settings
from screens.data.longest_list import LongestList
from screens.data.record_browser import MAP_COLUMNS, UNRECOGNIZED, RecordBrowser
from screens.data.records import RECORDS_KEPT, raw_data, read_first_records
from screens.forms.form import SettingForm, row_of
from screens.forms.help import help_text
from screens.forms.row import SettingRow
from screens.messages import RecipeChanged
from screens.session import dataset_key
from screens.widgets.key_texts import keyed
from screens.widgets.pane import Pane, beside
from screens.widgets.paragraph import Paragraph, set_title
from screens.widgets.plain import plain, plain_content
from screens.widgets.sizes import NARROW_BELOW
from workbench.data.facts import DataFacts
from workbench.engine.client.requests import facts_request
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult
    from textual.widget import Widget

    from screens.data.records import RawData
    from screens.shell.jobs import Job
    from workbench.recipe.schema import Recipe

# Nothing is read while a path is being typed.
_SECONDS_TO_SETTLE = 0.3
_COUNT = ("count", "data")


class DataPane(Pane):
    """The data section of the recipe as a form, the records, and their statistics."""

    NAME = "Data"
    GUIDE = (
        "The dataset and how it is read. Enter lets you type a value, the arrows change it. The other panel shows the "
        "formatted training text with trained tokens underlined: {data.next} and {data.previous} step through the "
        "records, {data.longest} through the longest, {data.search} searches all of them. {data.map} maps columns to "
        "prompt, response and the other parts of a record. Tokens are counted with the model's tokenizer: "
        "{data.fetch} downloads the tokenizer or dataset if it is not on disk, and stops counting. {data.figures} "
        "shows the statistics on a small screen."
    )
    DEFAULT_CSS = beside(__file__)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter",
            "source",
            "Source",
            id="data.source",
            tooltip="Type the dataset: a file, folder, hub id or bundled name",
        ),
        Binding("m", "map", "Map columns", id="data.map", tooltip="Choose which column is the prompt, the response …"),
        Binding("n", "turn(1)", "Next record", id="data.next"),
        Binding("p", "turn(-1)", "Previous", id="data.previous"),
        Binding(
            "L", "longest", "Longest", key_display="L", id="data.longest", tooltip="Step through the longest records"
        ),
        Binding(
            "slash", "search", "Search", key_display="/", id="data.search", tooltip="Search the text of all records"
        ),
        Binding("ctrl+f", "search", show=False),
        Binding("escape", "end_search", "End search", id="data.end_search"),
        Binding(
            "t",
            "fetch",
            "Download & count",
            id="data.fetch",
            tooltip="Download tokenizer and dataset, then count the tokens",
        ),
        Binding(
            "t",
            "stop_count",
            "Stop counting",
            id="data.stop_count",
            tooltip="Stop counting; show the sample's statistics",
        ),
        Binding("z", "figures", "Fold statistics", id="data.figures", tooltip="Switch between statistics and records"),
        Binding("down", "move(1)", "Next setting", show=False, id="data.below"),
        Binding("up", "move(-1)", "Previous setting", show=False, id="data.above"),
    ]

    def __init__(self, **names: Any) -> None:
        super().__init__(**names)
        self._form = SettingForm(map(SettingRow, data_settings()), id="data-form")
        self._browser = RecordBrowser(lambda: self.session, self.refresh_bindings, id="seen")
        self._counts = Paragraph(id="counted")
        self._histogram = Paragraph(id="histogram")
        self._notices = Paragraph(id="notices")
        self._statistics = VerticalScroll(self._counts, self._histogram, self._notices, id="counts")
        self._longest_list = LongestList()
        self._help = Paragraph(id="data-help")
        self._longest = 0
        # What the engine was last asked to count, its progress, and why it could not.
        self._counted: object = None
        self._progress = ""
        self._trouble: WorkbenchError | None = None

    def compose(self) -> ComposeResult:
        self._form.border_title = "Data"
        self._statistics.border_title = "statistics"
        with Vertical(id="data-body"):
            yield Vertical(self._form, self._statistics, id="data-left")
            yield Vertical(self._browser, self._longest_list, id="data-right")
        yield self._help

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width < NARROW_BELOW, "-narrow")
        self.refresh_bindings()

    def first_focus(self) -> Widget:
        return self._form.selected

    # -- the recipe -----------------------------------------------------------------------------------------------

    def on_shown(self) -> None:
        if self._trouble is not None:
            self._counted = None  # what was missing may be there now
        self._show()

    @on(RecipeChanged)
    def _show(self) -> None:
        self._form.show(self.session.recipe, self.session.skeleton)
        raw = raw_data(self.session.recipe)
        if raw != self._browser.data:
            self.run_worker(self._look_at(raw), group="look", exclusive=True)
        if dataset_key(self.session.recipe) != self._counted:
            self._count()
        self._show_counts()

    def select_setting(self, path: str) -> None:
        self._form.select_setting(path)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        row = row_of(event.widget)
        if row is not None:
            self._help.show(help_text(row.spec, self.session.recipe))

    # -- the records ----------------------------------------------------------------------------------------------

    async def _look_at(self, raw: RawData) -> None:
        """Read the records in a thread, until the recipe has another data section."""
        if self._browser.data is not None:
            await asyncio.sleep(_SECONDS_TO_SETTLE)
        found = read_first_records(raw, self.session.home)
        try:
            while seen := await asyncio.to_thread(next, found, None):
                if raw != raw_data(self.session.recipe):
                    return
                self._browser.look_at(raw, seen)
        except WorkbenchError as error:
            if raw == raw_data(self.session.recipe):
                self._browser.look_at(raw, error)

    def _count(self, fetch: bool = False) -> None:
        """Let the engine count the tokens of the recipe's data, instead of any earlier count."""
        settle = self._counted is not None and not fetch
        recipe = self.session.recipe
        self._counted, self._trouble = dataset_key(recipe), None
        self._browser.forget()
        facts = self._facts
        if fetch or facts is None or not facts.exact:
            self._progress = "counting"
            # An answer before the first layout would get the height of the text it replaces.
            self.call_after_refresh(self._start_counting, recipe, fetch, settle)

    def _start_counting(self, recipe: Recipe, fetch: bool, settle: bool) -> None:
        self._stop_counting()
        self.workbench.jobs.start(
            _COUNT,
            f"count of {recipe.data.source}" if not fetch else f"download and count of {recipe.data.source}",
            partial(self._counting, recipe, fetch, settle),
            open_result=lambda: self.workbench.attempt(self.workbench.action_show_tab("data")),
            describe=lambda _: "Counted; the statistics are on Data.",
            is_minor=not fetch,
        )

    def _stop_counting(self) -> None:
        if (job := self.workbench.jobs.get(_COUNT)) is not None:
            job.stop()

    async def _counting(self, recipe: Recipe, fetch: bool, settle: bool, job: Job) -> bool:
        if settle:
            await asyncio.sleep(_SECONDS_TO_SETTLE)
        try:
            if self.session.status is None:
                await self.workbench.start_engine()
            request = facts_request(recipe, fetch=fetch, show=RECORDS_KEPT)
            async with aclosing(self.session.engine.facts(request)) as answers:
                async for answer in answers:
                    if isinstance(answer, DataFacts):
                        self.session.dataset_facts = dataset_key(recipe), answer
                        self._browser.refresh_record()
                    else:
                        share = "" if answer.fraction is None else f" {answer.fraction:.0%}"
                        self._progress = f"{answer.phase}{share}  {answer.detail}"
                        job.report(answer)
                    self._show_counts()
        except WorkbenchError as error:
            self._trouble = error
        self._progress = ""
        self._show_counts()
        if self._trouble is not None and fetch:
            raise self._trouble
        return True

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        facts = self._facts
        match action:
            case "turn":
                return self._browser.can_turn
            case "end_search":
                return self._browser.is_searching
            case "longest":
                return facts is not None and bool(facts.longest)
            case "fetch":
                return self._trouble is not None and not self._progress
            case "stop_count":
                return bool(self._progress)
            case "figures":
                return self.has_class("-narrow")
        return True

    def action_turn(self, by: int) -> None:
        """Show the next or the previous record, or match of a search."""
        self._browser.turn(by)

    def action_search(self) -> None:
        """Search the text of all records."""
        self.remove_class("-figures")
        self._browser.open_search()

    def action_end_search(self) -> None:
        """Close the search, running or not."""
        self._browser.end_search()

    def action_fetch(self) -> None:
        """Download tokenizer and dataset, then count the tokens."""
        self._count(fetch=True)
        self._show_counts()

    def action_stop_count(self) -> None:
        """Stop counting; the statistics so far stay."""
        self._stop_counting()
        self._progress = ""
        self._trouble = WorkbenchError("Counting was stopped.", "", kind="cancelled")
        self._show_counts()

    def action_figures(self) -> None:
        """Switch between statistics and records, on a terminal with no room for both."""
        self.toggle_class("-figures")
        (self._statistics if self.has_class("-figures") else self._browser.view).focus()

    def action_longest(self) -> None:
        """Show the longest record, then the next longest."""
        facts = self._facts
        if facts is not None and facts.longest:
            index, _, _ = facts.longest[self._longest % len(facts.longest)]
            self._longest += 1
            self._go_to(index)

    @on(LongestList.Chosen)
    def _longest_chosen(self, event: LongestList.Chosen) -> None:
        event.stop()
        self._go_to(event.index)

    def _go_to(self, index: int) -> None:
        self.remove_class("-figures")
        self.workbench.attempt(self._browser.go_to(index))

    @property
    def _facts(self) -> DataFacts | None:
        return self.session.facts_of(self.session.recipe)

    async def action_source(self) -> None:
        """Type the dataset: a file, folder, hub id or bundled name."""
        await self._form.rows[0].action_edit()

    def action_map(self) -> None:
        """Map columns to the parts of a record."""
        from screens.data.mapping_dialog import map_columns

        self.workbench.attempt(map_columns(self.workbench), asks=True)

    def action_move(self, by: int) -> None:
        """Move to the setting above or below."""
        self._form.action_move(by)

    def _show_counts(self) -> None:
        """Show the statistics, or those of a sample, and the progress of counting."""
        self.refresh_bindings()
        facts = self._facts
        set_title(self._statistics, "statistics" if facts is None or facts.exact else "statistics of a sample")
        state = _why_not_counted(self._trouble) if self._trouble else plain_content(self._progress, "$foreground 60%")
        parts = [state] if state.plain else []
        parts += [data_figures(facts, self.session.recipe)] if facts else []
        self._counts.show(Content("\n").join(parts))
        self._histogram.show(histogram(facts) if facts else Content(""))
        self._notices.show(notices(facts) if facts else Content(""))
        self._longest_list.show(facts)


_CURES = {
    "tokenizer_elsewhere": "Press {data.fetch} to download the tokenizer and count.",
    "data_elsewhere": "Press {data.fetch} to download and count.",
    **dict.fromkeys(UNRECOGNIZED, MAP_COLUMNS),
}


def _why_not_counted(error: WorkbenchError) -> Content:
    cure = _CURES.get(error.kind, f"{plain(error.cure)} Press {{data.fetch}} to try again.".lstrip())
    cure = plain(error.cure) if error.kind == "data_missing" else cure
    return Content.assemble((plain(error.message), ""), (f"\n{keyed(cure)}", "bold"))
