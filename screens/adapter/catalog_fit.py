"""What can be trained on this GPU: the models of the catalog under the selected settings, on each kind of base."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on
from textual.binding import Binding, BindingType
from textual.containers import VerticalGroup
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import DataTable, Static

from screens.shell.fit import judge
from screens.widgets.glyphs import ENTER, GLYPHS
from screens.widgets.plain import plain
from workbench.adapters.registry import size_words
from workbench.estimate.adapter.suggested_fix import changes_text
from workbench.estimate.by_method import METHODS
from workbench.estimate.catalog_fit import CatalogFit, catalog_fits, settings_text
from workbench.recipe.text import choosing_model
from workbench.units import gib, gib_number, short

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from screens.session import Session
    from workbench.estimate.peak import Peak

_NAME, _SIZE, _CELL = 25, 6, 11


class CatalogFitScreen(ModalScreen[Mapping[str, object] | None]):
    """The table. The answer are changes that take the current model into the recipe."""

    DEFAULT_CSS = """
    CatalogFitScreen { align: center middle; background: $background 60%; }
    CatalogFitScreen > VerticalGroup {
        width: 78; max-width: 100%; height: 90%; border: round $border; background: $surface;
        border-title-style: bold; border-title-color: $foreground;
    }
    CatalogFitScreen DataTable { height: 1fr; background: $surface; scrollbar-size: 0 1; }
    CatalogFitScreen DataTable > .datatable--header { background: $surface; color: $muted; text-style: none; }
    CatalogFitScreen #catalog-fit-words { height: 3; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,W,q", "close", "Back", id="catalog_fits.close"),
        Binding("enter", "use", "Use this model", key_display=ENTER, priority=True, id="catalog_fits.use"),
    ]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._rows: list[CatalogFit] = []
        self._table: DataTable[Text] = DataTable(cursor_type="row", cell_padding=1)
        self._notes = Static(id="catalog-fit-words")

    def compose(self) -> ComposeResult:
        budget = self._session.budget
        with VerticalGroup() as box:
            free = f"{gib(budget.free_bytes)} ({budget.label})" if budget.free_bytes is not None else "unknown memory"
            box.border_title = f"Models that fit in {free}"
            yield self._table
            yield self._notes

    def on_mount(self) -> None:
        self._table.add_column(Text("model"), width=_NAME)
        self._table.add_column(Text("size", justify="right"), width=_SIZE)
        for name in METHODS:
            self._table.add_column(Text(name, justify="right"), width=_CELL)
        self._say(Content.styled("Estimating every catalog model with the current settings …", "$muted"))
        self.run_worker(self._fill(), exclusive=True)

    async def _fill(self) -> None:
        session = self._session
        budget = session.budget
        self._rows = await asyncio.to_thread(lambda: list(catalog_fits(session.recipe, budget, session.traces)))
        for row in self._rows:
            name = plain(row.source).rpartition("/")[2]
            cells = [Text(name, overflow="ellipsis"), Text(short(row.parameters), justify="right")]
            self._table.add_row(*cells, *(self._cell(row.peaks.get(method)) for method in METHODS), key=row.source)
        here = next((i for i, row in enumerate(self._rows) if row.source == session.recipe.model.source), 0)
        self._table.move_cursor(row=here)
        self._table.focus()

    def _cell(self, peak: Peak | None) -> Text:
        """``5.20 fits``: GiB and the verdict, which color alone would not tell."""
        if peak is None:
            return Text("refused", style=self.app.theme_variables["muted"], justify="right")
        free = self._session.budget.free_bytes
        size = gib_number(peak.device_bytes)
        if free is None:
            return Text(size, justify="right")
        fit = judge(peak, free)
        return Text(f"{size} {fit.word:<5}", style=self.app.theme_variables[fit.color], justify="right")

    @property
    def _selected(self) -> CatalogFit | None:
        index = self._table.cursor_row
        return self._rows[index] if 0 <= index < len(self._rows) else None

    @on(DataTable.RowHighlighted)
    def _moved(self) -> None:
        row = self._selected
        if row is None:
            return
        recipe = self._session.recipe
        dot = f" {GLYPHS.separator} "
        settings = dot.join((size_words(recipe.adapter), *settings_text(recipe)))
        rough = any(peak.method == "closed-form" for peak in row.peaks.values())
        notes = [
            f"with {changes_text(row.changes)}" if row.changes else "",
            "estimate" if rough else "",
            "" if row.peaks else "the adapter settings do not work with this model",
        ]
        told = f" ({dot.join(note for note in notes if note)})" if any(notes) else ""
        self._say(
            Content.assemble(
                (plain(row.source), "bold"), f"{told}\n", (f"GiB with {settings}", "$muted"),
                "\n", (f"{ENTER} use this model   Esc back", "$accent"),
            )
        )  # fmt: skip

    def _say(self, words: Content) -> None:
        self._notes.update(words)

    def action_use(self) -> None:
        """Take the current model, and the changes that it needs, into the recipe."""
        row = self._selected
        if row is not None:
            self.dismiss({**choosing_model(self._session.recipe, row.source), **row.changes})

    def action_close(self) -> None:
        self.dismiss(None)
