"""Models: choose the base model from this machine, the catalog, or any folder, GGUF file or hub id."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Input, Static

from screens.dialogs.presets import load_preset
from screens.dialogs.questions import YES, Choice, ChoiceDialog
from screens.models.download import download_text, running_download, start_download
from screens.models.facts import facts_text
from screens.models.rows import ModelRow, all_lists, matching, with_source
from screens.models.table import FILTERS, Chips, ModelTable, SearchField, sorted_rows
from screens.shell.cost_view import refusal_and_fix
from screens.shell.fit import Fit, fits_of
from screens.shell.header import short_name
from screens.widgets.delay import Delay
from screens.widgets.glyphs import ENTER
from screens.widgets.key_texts import key, keyed
from screens.widgets.lazy_table import LazyTable
from screens.widgets.pane import Pane, beside
from screens.widgets.plain import plain
from screens.widgets.sizes import NARROW_BELOW
from workbench.errors import WorkbenchError
from workbench.recipe.text import choosing_model

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult
    from textual.widget import Widget

    from screens.messages import RecipeChanged, SkeletonChanged
    from screens.shell.jobs import Job
    from workbench.models.skeleton import Skeleton

_FIT_DELAY_SECONDS = 0.3
_FITS_TOGETHER = 8
_DEMO = "demo"
_OWN_KEYS = {"slash", "space", "greater_than_sign", "less_than_sign", "exclamation_mark"}


class ModelsPane(Pane):
    """Choose the base model."""

    NAME = "Models"
    GUIDE = (
        "Choose the model to fine-tune. Type to search by name, architecture or license, or type a folder, a .gguf "
        "file or any Hugging Face id (owner/name). Enter uses the model in the recipe; it is downloaded when first "
        "needed, or now with {models.fetch}. “fits” compares the peak estimated for the Adapter settings with the "
        "memory now free on this machine."
    )
    DEFAULT_CSS = beside(__file__)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "primary", "Use this model", key_display=ENTER, id="models.use",
                tooltip="Use this model in the recipe"),
        Binding("space", "fetch", "Download", id="models.fetch", tooltip="Download the model, or cancel the download"),
        Binding("slash", "search", "Search", key_display="/", id="models.search", tooltip="Search by name or license"),
        Binding("right", "filter(1)", "Filter", key_display="← →", id="models.filter",
                tooltip="Show all, those on this machine, those that fit …"),
        Binding("left", "filter(-1)", "Filter", show=False, id="models.filter_back", tooltip="The previous filter"),
        Binding("greater_than_sign", "sort(1)", "Sort", key_display=">", id="models.sort",
                tooltip="Sort by the next column"),
        Binding("less_than_sign", "sort(-1)", "Sort back", show=False, key_display="<", id="models.sort_back",
                tooltip="Sort by the previous column"),
        Binding("exclamation_mark", "turn", "Reverse sort", show=False, key_display="!", id="models.turn",
                tooltip="Reverse the sort order"),
    ]  # fmt: skip

    def __init__(self, **names: Any) -> None:
        super().__init__(**names)
        self._table = ModelTable()
        self._chips = Chips()
        self._filter = 0
        self._search = SearchField(self._table)
        self._facts = Static(id="models-facts")
        self._hint = Static(id="models-hint")
        self._all: list[ModelRow] = []
        self._mistakes: tuple[str, ...] = ()
        self._rows: list[ModelRow] = []
        self._fits: dict[str, Fit] = {}
        self._watched: set[Job] = set()
        self._check_fits_soon = Delay(self, self._check_fits, _FIT_DELAY_SECONDS)
        self._just_chosen = ""

    def compose(self) -> ComposeResult:
        yield self._search
        yield self._chips
        with Horizontal(id="models-body"):
            yield self._table
            yield Vertical(self._facts, id="models-details")
        yield self._hint

    def first_focus(self) -> Widget:
        return self._table

    # -- the session ----------------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        self.run_worker(self._read_rows(), exclusive=True, group="rows")

    def on_shown(self) -> None:
        self._show_hint()
        if self._all:
            if any(job.is_over for job in self._watched):
                self._watched.clear()
                self.run_worker(self._read_rows(), exclusive=True, group="rows")
            for job in self._watched:
                job.watch(self._download_news)
            self._fill()
            self._check_fits_soon.ask()

    def on_hidden(self) -> None:
        for job in self._watched:
            job.watch(None)
        self._check_fits_soon.cancel()

    def on_recipe_changed(self, _: RecipeChanged) -> None:
        self._fill()
        self._show_hint()
        self._check_fits_soon.ask()

    def on_skeleton_changed(self, event: SkeletonChanged) -> None:
        """Offer a fix if the model that was just chosen does not accept the adapter settings; list what was read."""
        source = self.session.recipe.model.source
        if self._all and all(row.source != source or not row.architecture for row in self._all):
            self.run_worker(self._read_rows(), exclusive=True, group="rows")
        if event.skeleton is not None and self._just_chosen == self.session.recipe.model.source:
            self._just_chosen = ""
            self._offer_fix(event.skeleton)

    def on_resize(self) -> None:
        self._show_facts()

    async def _read_rows(self) -> None:
        lists = await asyncio.to_thread(all_lists, self.session.home)
        self._all, self._mistakes = lists.rows, lists.mistakes
        self._show_hint()
        self._fill()
        self._check_fits_soon.ask()

    @property
    def _is_wide(self) -> bool:
        return self.app.size.width >= NARROW_BELOW

    # -- the list -------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Show the rows that match search and filter, in order, with the cursor on the same row."""
        before, source = self._selected_row, self.session.recipe.model.source
        found = matching(with_source(self._all, source), self._search.value)
        kinds = [[row for row in found if one.holds(row, self._fits.get(row.source))] for one in FILTERS]
        table = self._table
        self._rows = sorted_rows(kinds[self._filter], self._fits, table.by, turned=table.turned)
        index = 0
        if before is not None:
            index = next((i for i, row in enumerate(self._rows) if row.source == before.source), 0)
        table.show(self._rows, source, self._fits, cursor=index)
        self._chips.show(self._filter, [len(kind) for kind in kinds])
        self._show_facts()

    def action_filter(self, by: int) -> None:
        """Use the next filter, or the previous one."""
        self._use_filter((self._filter + by) % len(FILTERS))

    @on(Chips.Chosen)
    def _chip_clicked(self, event: Chips.Chosen) -> None:
        self._use_filter(event.index)

    def _use_filter(self, index: int) -> None:
        self._filter = index
        self._fill()

    def action_sort(self, by: int) -> None:
        """Sort by the next or the previous column."""
        self._table.sort_by_neighbor(by)
        self._fill()

    def action_turn(self) -> None:
        """Reverse the order."""
        self._table.turned = not self._table.turned
        self._fill()

    @on(LazyTable.HeadingClicked)
    def _heading_clicked(self, event: LazyTable.HeadingClicked) -> None:
        self._table.sort_by(event.column)
        self._fill()

    @property
    def _selected_row(self) -> ModelRow | None:
        index = self._table.cursor_row
        return self._rows[index] if 0 <= index < len(self._rows) else None

    @on(LazyTable.Highlighted)
    def _moved(self) -> None:
        self._show_facts()

    @on(LazyTable.Selected)
    def _clicked(self) -> None:
        self.action_primary()

    def _check_fits(self) -> None:
        self.run_worker(self._read_fits(), exclusive=True, group="fits")

    async def _read_fits(self) -> None:
        """Check which models fit the free memory under the current recipe, those in view first, while anybody looks."""
        session = self.session
        sources = list(dict.fromkeys(row.source for row in (*self._rows, *self._all)))
        for start in range(0, len(sources), _FITS_TOGETHER):
            some = sources[start : start + _FITS_TOGETHER]
            fits = await asyncio.to_thread(fits_of, some, session.recipe, session.budget, session.traces)
            self._fits |= fits
            if not self.is_shown:
                return
            self._fill()  # more of them are known to fit

    # -- search ---------------------------------------------------------------------------------------------------

    def on_key(self, event: events.Key) -> None:
        """Start a search with a letter that is typed over the list."""
        typed = event.character if event.is_printable else None
        # Keys that arrive together all come here from the list: those after the first letter are text, too.
        is_text = self.screen.focused is self._search or (typed and not typed.isdigit() and event.key not in _OWN_KEYS)
        if typed and is_text:
            event.stop()
            self.screen.set_focus(self._search)
            self._search.value += typed
            self._search.action_end()

    def action_search(self) -> None:
        """Go to the search field."""
        self.screen.set_focus(self._search)

    def clear_filter(self) -> bool:
        """Show all models again, with the cursor on the same one."""
        is_filtered = bool(self._search.value or self._filter)
        self._search.value = ""
        self._use_filter(0)
        return is_filtered

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._fill()
        if event.value:
            self._table.move_cursor(row=0)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_primary()

    # -- use ------------------------------------------------------------------------------------------------------

    def action_primary(self) -> None:
        """Use the selected model in the recipe."""
        row = self._selected_row
        if row is None:
            return
        if row.lack and row.place == "folder":
            self.workbench.show_error(
                WorkbenchError(row.lack, "Check the path. A Hugging Face id has the form owner/name.")
            )
            return
        from workbench.recipe.sections.model import DEFAULT_MODEL

        if row.source == DEFAULT_MODEL and not self.session.model_chosen:
            # For a first try: the demo's recipe shows the most in a few minutes, with or without a GPU.
            load_preset(self.workbench, _DEMO)
            return
        self._just_chosen = row.source
        self.workbench.set_recipe(choosing_model(self.session.recipe, row.source))
        self._table.focus()

    def _offer_fix(self, skeleton: Skeleton) -> None:
        refusal, fix = refusal_and_fix(skeleton, self.session.recipe)
        if refusal is None or fix is None:
            return

        def answered(answer: str | None) -> None:
            if answer is not None:
                self.workbench.set_recipe(fix.changes)

        apply = Choice(YES, f"Apply {fix.short}", "change")
        self.app.push_screen(ChoiceDialog("Adapter", f"{refusal.message} {fix.sentence}", [apply]), answered)

    def action_fetch(self) -> None:
        """Download the selected model, or cancel the download."""
        row = self._selected_row
        if row is None:
            return
        if (job := running_download(self.workbench, row.source)) is not None:
            job.stop()
        elif row.place != "here":
            self._watch(start_download(self.workbench, row.source))

    def _watch(self, job: Job) -> None:
        """Show the progress of a download here, while the pane is shown; else its end is announced."""
        self._watched.add(job)
        job.watch(self._download_news)
        self._show_facts()

    def _download_news(self, job: Job) -> None:
        if not job.is_over:
            self._show_facts()
            return
        self._watched.discard(job)
        if job.error is not None and job.state == "failed":
            self.workbench.show_error(job.error)
        self.run_worker(self._read_rows(), exclusive=True, group="rows")

    # -- the details ----------------------------------------------------------------------------------------------

    def _show_facts(self) -> None:
        row = self._selected_row
        if row is None:
            self._facts.update(Content.styled(_NOTHING, "$muted"))
        else:
            text = facts_text(row, self._fits.get(row.source), is_wide=self._is_wide)
            job = running_download(self.workbench, row.source)
            lines = [text, *([download_text(job)] if job is not None else [])]
            self._facts.update(Content("\n").join(lines))

    def _show_hint(self) -> None:
        if self.session.model_chosen:
            name = plain(short_name(self.session.recipe.model.source))
            tabs = ", ".join(f"{key(f'tab.{tab}')} {tab.capitalize()}" for tab in ("adapter", "data", "train"))
            text = f"Using {name}. Next: {tabs}."
        else:
            text = keyed("To fine-tune it here: {models.use}, then {tab.train}, then {train.start}.")
        hint = Content.styled(text, "$accent")
        if self._mistakes:
            more = f" And {len(self._mistakes) - 1} more." if len(self._mistakes) > 1 else ""
            hint = Content.assemble((f"{plain(self._mistakes[0])}{more}", "$warning"), "\n", hint)
        self._hint.update(hint)


_NOTHING = "No match. Esc twice shows all models; owner/name selects any hub model."
