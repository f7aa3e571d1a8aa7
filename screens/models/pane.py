"""Models: what lies on this machine, what the catalog knows, and any folder, GGUF file or hub id that is typed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import DataTable, Input, Static

from screens.models.rows import ModelRow, all_rows, matching, with_source
from screens.shell.cost_view import device_of, suggested_fix_of
from screens.shell.delay import Delay
from screens.shell.dialogs import Choice, ChoiceDialog
from screens.shell.fit import Fit, fits_of
from screens.shell.header import short_name
from screens.widgets.glyphs import ENTER, GLYPHS, bar
from screens.widgets.pane import Pane, beside
from screens.widgets.plain import plain
from workbench.errors import WorkbenchError
from workbench.units import file_size, short

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult
    from textual.widget import Widget

    from screens.messages import RecipeChanged, SkeletonChanged
    from workbench.models.skeleton import Skeleton
    from workbench.progress import Progress

_FIT_DELAY_SECONDS = 0.3
_DEMO = "demo"
_OWN_KEYS = {"slash", "space"}


class ModelTable(DataTable[Text], inherit_bindings=False):
    """The list. Enter belongs to the pane, so that the footer names the action by what it does."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "cursor_up", show=False),
        Binding("down", "cursor_down", show=False),
        Binding("pageup", "page_up", show=False),
        Binding("pagedown", "page_down", show=False),
        Binding("home", "scroll_top", show=False),
        Binding("end", "scroll_bottom", show=False),
    ]


class SearchField(Input):
    """Typed into while the list below is walked with the arrows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Use this model", key_display=ENTER, id="search.use"),
        Binding("up", "walk(-1)", show=False),
        Binding("down", "walk(1)", show=False),
    ]

    def action_walk(self, by: int) -> None:
        table = self.screen.query_one(ModelTable)
        table.move_cursor(row=table.cursor_row + by)


class ModelsPane(Pane):
    """Choose the base model."""

    NAME = "Models"
    GUIDE = (
        "Choose the model to fine-tune. Type to search by name, architecture or licence, or type "
        "a folder, a .gguf file or any Hugging Face id (owner/name). Enter uses the model in the "
        "recipe; it is downloaded when first needed, or now with Space. “fits” compares the peak "
        "estimated for the Adapter settings with the memory now free on this machine."
    )
    DEFAULT_CSS = beside(__file__)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "primary", "Use this model", key_display=ENTER, id="models.use",
                tooltip="Use this model in the recipe"),
        Binding("space", "fetch", "Download", id="models.fetch", tooltip="Download the model, or cancel the download"),
        Binding("slash", "search", "Search", key_display="/", id="models.search", tooltip="Search by name or licence"),
    ]  # fmt: skip

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._table = ModelTable(cursor_type="row", cell_padding=1)
        self._all: list[ModelRow] = []
        self._rows: list[ModelRow] = []
        self._fits: dict[str, Fit] = {}
        self._fetching: str | None = None
        self._fetch_id = ""
        self._progress: Progress | None = None
        self._judge_soon = Delay(self, self._judge, _FIT_DELAY_SECONDS)
        self._just_chosen = ""

    def compose(self) -> ComposeResult:
        yield SearchField(
            placeholder="Search, or type a folder, a .gguf file or owner/name", compact=True, select_on_focus=False
        )
        with Horizontal(id="models-body"):
            yield self._table
            with Vertical(id="models-details"):
                yield Static(id="models-facts")
        yield Static(id="models-hint")

    def first_focus(self) -> Widget:
        return self._table

    # -- the session ----------------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        self._add_columns()
        self.run_worker(self._read_rows(), exclusive=True, group="rows")

    def on_shown(self) -> None:
        self._show_hint()
        if self._all:
            self._fill()
            self._judge_soon.ask()

    def on_hidden(self) -> None:
        self._judge_soon.cancel()

    def on_recipe_changed(self, _: RecipeChanged) -> None:
        self._fill()
        self._show_hint()
        self._judge_soon.ask()

    def on_skeleton_changed(self, event: SkeletonChanged) -> None:
        """A model that was just chosen and does not take the adapter as it is: offer what makes it."""
        if event.skeleton is not None and self._just_chosen == self.session.recipe.model.source:
            self._just_chosen = ""
            self._offer_mending(event.skeleton)

    def on_resize(self) -> None:
        if self._is_wide != self._columns_are_wide:
            self._add_columns()
            self._fill()

    async def _read_rows(self) -> None:
        self._all = await asyncio.to_thread(all_rows, self.session.home)
        self._fill()
        self._judge_soon.ask()

    # -- the list -------------------------------------------------------------------------------------------------

    @property
    def _is_wide(self) -> bool:
        return self.app.size.width >= 100

    def _add_columns(self) -> None:
        self._table.clear(columns=True)
        self._columns_are_wide = self._is_wide
        widths = {"": 1, "model": 36, "size": 5, "family": 11, "licence": 10, "fits": 5}
        for label, width in widths.items():
            if label != "licence" or self._columns_are_wide:
                self._table.add_column(Text(label), width=width, key=label)

    def _fill(self) -> None:
        """The rows that match what is typed, with the cursor where it was."""
        before = self._selected_row
        self._rows = matching(
            with_source(self._all, self.session.recipe.model.source), self.query_one(SearchField).value
        )
        self._table.clear()
        for row in self._rows:
            self._table.add_row(*self._cells(row), key=row.source)
        if before is not None:
            index = next((i for i, row in enumerate(self._rows) if row.source == before.source), 0)
            self._table.move_cursor(row=index)
        self._show_facts()

    def _cells(self, row: ModelRow) -> list[Text]:
        colours = self.app.theme_variables
        in_use = row.source == self.session.recipe.model.source
        owner, slash, name = plain(row.source).rpartition("/")
        muted, accent = colours["muted"], colours["accent"]
        title = Text.assemble((owner + slash, muted), (name, f"bold {accent}" if in_use else ""), overflow="ellipsis")
        if len(title) > 36 and row.place in ("folder", "file"):
            title = Text.assemble(("…/", muted), (name, f"bold {accent}" if in_use else ""))
        fit = self._fits.get(row.source)
        cells = [
            Text(GLYPHS.pointer if in_use else GLYPHS.dot if row.place == "here" else "", style=accent),
            title,
            Text(short(row.parameters) if row.parameters else "", justify="right"),
            Text(plain(row.model_type), style=muted, overflow="ellipsis"),
            Text(plain(row.licence), style=muted, overflow="ellipsis"),
            Text(fit.word, style=colours[fit.colour]) if fit else Text(""),
        ]
        return cells if self._columns_are_wide else [*cells[:4], cells[5]]

    @property
    def _selected_row(self) -> ModelRow | None:
        index = self._table.cursor_row
        return self._rows[index] if 0 <= index < len(self._rows) else None

    @on(DataTable.RowHighlighted)
    def _moved(self) -> None:
        self._show_facts()

    @on(DataTable.RowSelected)
    def _clicked(self) -> None:
        self.action_primary()

    # -- search ---------------------------------------------------------------------------------------------------

    def on_key(self, event: events.Key) -> None:
        """A letter typed over the list starts a search with it."""
        field = self.query_one(SearchField)
        if (
            event.is_printable
            and event.character
            and not event.character.isdigit()
            and event.key not in _OWN_KEYS
            and not field.has_focus
        ):
            event.stop()
            field.focus()
            field.value += event.character
            field.action_end()

    def action_search(self) -> None:
        self.query_one(SearchField).focus()

    @on(Input.Changed)
    def _typed(self) -> None:
        self._fill()
        self._table.move_cursor(row=0)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_primary()

    # -- use ------------------------------------------------------------------------------------------------------

    def action_primary(self) -> None:
        """Take the current model into the recipe."""
        row = self._selected_row
        if row is None:
            return
        if row.lack and row.place == "folder":
            self.workbench.show_error(
                WorkbenchError(row.lack, "Check the path. A Hugging Face id has the form owner/name.")
            )
            return
        from workbench.recipe.schema import DEFAULT_MODEL

        if row.source == DEFAULT_MODEL and not self.session.model_chosen:
            # The first minute: the demo's own recipe shows the most in a few minutes, with a GPU or without.
            self.workbench.take_preset(_DEMO)
            return
        self._just_chosen = row.source
        changes: dict[str, object] = {"model.source": row.source}
        if row.source != self.session.recipe.model.source:
            changes["model.revision"] = None
        self.workbench.set_recipe(changes)
        self._table.focus()

    def _offer_mending(self, skeleton: Skeleton) -> None:
        refusal, cure = suggested_fix_of(skeleton, self.session.recipe)
        if refusal is None or cure is None:
            return

        def answered(answer: str | None) -> None:
            if answer == "change":
                self.workbench.set_recipe(cure.changes)

        choices = (Choice("c", f"Apply {cure.short}", "change"), Choice("l", "Cancel", "leave"))
        self.app.push_screen(ChoiceDialog("Adapter", f"{refusal.message} {cure.sentence}", choices), answered)

    # -- download -------------------------------------------------------------------------------------------------

    def action_fetch(self) -> None:
        """Bring the current model onto this machine, or stop doing so."""
        row = self._selected_row
        if self._fetching is not None:
            self.workbench.attempt(self.session.engine.cancel(self._fetch_id))
        elif row is not None and row.place != "here":
            self._fetching = row.source
            self._show_facts()
            self.workbench.attempt(self._fetch(row.source))

    async def _fetch(self, source: str) -> None:
        from workbench.engine.client.protocol import new_request_id
        from workbench.recipe.schema import ModelSection

        self._fetch_id = new_request_id()
        try:
            await self.workbench.start_engine()
            request = self.session.engine.fetch(ModelSection(source=source), request_id=self._fetch_id)
            async with aclosing(request) as answers:
                async for progress in answers:
                    self._progress = progress
                    self._show_facts()
        except WorkbenchError as error:
            if error.kind != "cancelled":
                raise
        finally:
            self._fetching = self._progress = None
            await self._read_rows()

    # -- what fits ------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        self.run_worker(self._judge_all(), exclusive=True, group="fits")

    async def _judge_all(self) -> None:
        sources = [row.source for row in self._all]
        session = self.session
        self._fits = await asyncio.to_thread(
            fits_of, sources, session.recipe, device_of(session), session.budget.free_bytes, session.traces
        )
        colours = self.app.theme_variables
        for row in self._rows:
            if (fit := self._fits.get(row.source)) is not None:
                self._table.update_cell(row.source, "fits", Text(fit.word, style=colours[fit.colour]))
        self._show_facts()

    # -- the details ----------------------------------------------------------------------------------------------

    def _show_facts(self) -> None:
        row = self._selected_row
        place = self.query_one("#models-facts", Static)
        place.update(self._facts(row) if row is not None else Content.styled(_NOTHING, "$muted"))

    def _facts(self, row: ModelRow) -> Content:
        owner, _, name = plain(row.source).rpartition("/")
        title = Content.assemble((name, "bold"), (f"  {owner}" if owner else "", "$muted"))
        pairs = {
            "parameters": f"{row.parameters:,}" if row.parameters else "",
            "architecture": plain(row.architecture),
            "licence": plain(row.licence),
            "dtype": plain(row.dtype),
            "context": f"{row.context_length:,} tokens" if row.context_length else "",
            "weights": self._whereabouts(row),
        }
        known = [(label, value) for label, value in pairs.items() if value]
        if self._is_wide:
            lines = [title, *(Content.assemble((f"{label:<13}", "$muted"), value) for label, value in known)]
        else:
            parts = [Content.assemble((f"{label} ", "$muted"), value) for label, value in known]
            lines = [title, Content(f" {GLYPHS.separator} ").join(parts)]
        if row.gated and row.place != "here":
            lines.append(Content.styled("Gated: accept its licence on huggingface.co and set HF_TOKEN.", "$warning"))
        if row.lack:
            lines.append(Content.styled(f"Not trainable: {plain(row.lack)}.", "$error"))
        if fit := self._fits.get(row.source):
            lines.append(Content.styled(fit.sentence, f"${fit.colour}"))
        if self._fetching is not None:
            lines.append(self._fetch_line())
        return Content("\n").join(lines)

    @staticmethod
    def _whereabouts(row: ModelRow) -> str:
        if row.place == "here":
            return f"on disk, {file_size(row.size_on_disk)}"
        if row.place == "hub":
            return f"not downloaded, {file_size(2 * row.parameters)}" if row.parameters else "hub"
        return "local folder" if row.place == "folder" else "local file"

    def _fetch_line(self) -> Content:
        progress = self._progress
        words = f"{progress.phase} {progress.detail}" if progress else "starting the engine"
        head = Content.styled(f"\n{plain(short_name(self._fetching or ''))}: {plain(words)}", "$accent")
        if progress is None or progress.fraction is None:
            return head
        return Content.assemble(
            head, "\n", (bar(progress.fraction, 24), "$accent on $panel"), f" {100 * progress.fraction:.0f} %"
        )

    def _show_hint(self) -> None:
        if self.session.model_chosen:
            name = plain(short_name(self.session.recipe.model.source))
            text = f"Using {name}. Next: 3 Adapter, 4 Data, 5 Train."
        else:
            text = "To fine-tune it here: Enter, then 5, then Enter."
        self.query_one("#models-hint", Static).update(Content.styled(text, "$accent"))


_NOTHING = "No match. Backspace or Esc widens the search; owner/name selects any hub model."
