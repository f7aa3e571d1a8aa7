"""Maps columns to the parts of a record by hand, with the first record as it will be trained on."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from screens.data.mapping import PARTS, assigned, part_of, stepped
from screens.data.record_view import RecordView
from screens.dialogs.questions import Dialog
from screens.widgets.glyphs import ENTER, GLYPHS
from screens.widgets.paragraph import set_title
from screens.widgets.plain import plain, shortened
from workbench.data.columns import find_columns
from workbench.data.open_source import remote_sources
from workbench.data.sources import load_records
from workbench.engine.client.requests import columns_request, examples_request
from workbench.errors import WorkbenchError
from workbench.recipe.text import edit

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from screens.session import Session
    from screens.workbench import Workbench
    from workbench.data.columns import FoundColumns
    from workbench.data.sources import Item
    from workbench.recipe.schema import Recipe
    from workbench.storage.paths import Home

_COLUMN = "data.columns"
_NAME_CELLS = 18
# Errors of the engine with which the record is still shown, as it is before the template.
_NO_TOKENS = ("tokenizer_elsewhere", "data_elsewhere", "engine_gone")


async def map_columns(workbench: Workbench) -> None:
    """Ask how the columns of the recipe's data are mapped, and write the answer into the recipe. From a worker.

    Raises:
        WorkbenchError: the data cannot be read.
    """
    session = workbench.session
    dialog = MappingDialog(workbench, session.recipe, await _columns(workbench))
    answer = await workbench.push_screen_wait(dialog)
    if answer is not None:
        workbench.set_recipe({_COLUMN: answer})


async def _columns(workbench: Workbench) -> FoundColumns:
    session = workbench.session
    if not remote_sources(session.recipe.data.source):
        return await asyncio.to_thread(find_columns, session.recipe.data, session.recipe.objective.spec.shown_as)
    if session.status is None:
        await workbench.start_engine()
    return await session.engine.columns(columns_request(session.recipe))


class MappingDialog(Dialog[dict[str, str]]):
    """Columns on one side, parts on the other, the first record below; returns ``data.columns``.

    The recipe changes only with the answer: Escape leaves it as it was.

    Args:
        workbench: the app.
        recipe: the recipe whose data is mapped.
        found: its columns.
    """

    DEFAULT_CSS = """
    MappingDialog > Vertical {
        width: 96%; height: 92%; border: round $border; background: $surface; padding: 0 1;
        border-title-style: bold; border-title-color: $foreground;
    }
    MappingDialog Horizontal { height: auto; max-height: 45%; }
    MappingDialog OptionList, MappingDialog OptionList:focus {
        height: auto; max-height: 100%; width: 1fr; padding: 0; background: $surface; scrollbar-size-vertical: 1;
        border: round $border-blurred; border-title-color: $foreground 70%;
        text-wrap: nowrap; text-overflow: ellipsis;
    }
    MappingDialog OptionList:focus { border: round $border; }
    MappingDialog OptionList > .option-list--option { padding: 0; }
    MappingDialog #columns { width: 3fr; }
    MappingDialog #parts { width: 2fr; }
    MappingDialog RecordView { height: 1fr; max-height: 100%; margin-bottom: 0; }
    MappingDialog RecordView { border: round $border-blurred; border-title-color: $foreground 70%; }
    MappingDialog .keys { color: $text-muted; height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "save", "Save", priority=True, key_display=ENTER, id="mapping.save",
                tooltip="Write the mapping into the recipe"),
        Binding("left", "step(-1)", "Previous part", key_display="←", id="mapping.previous",
                tooltip="Map the column to the previous part"),
        Binding("right", "step(1)", "Next part", key_display="→", id="mapping.next",
                tooltip="Map the column to the next part"),
        Binding("minus,delete", "assign('')", "Unused", key_display="-", id="mapping.unused",
                tooltip="Leave the column unused"),
        Binding("a", "detect", "Detect", id="mapping.detect", tooltip="Use the mapping that detection finds"),
        *(Binding(part.key, f"assign('{part.name}')", part.name, show=False, id=f"mapping.{part.name}",
                  tooltip=part.help) for part in PARTS),
    ]  # fmt: skip

    def __init__(self, workbench: Workbench, recipe: Recipe, found: FoundColumns) -> None:
        super().__init__()
        self._workbench = workbench
        self._recipe = recipe
        self._found = found
        names = [column.name for column in found.columns]
        self._mapping = {
            part: column for part, column in (recipe.data.columns or found.detected).items() if column in names
        }
        self._columns = OptionList(id="columns", markup=False)
        self._parts = OptionList(id="parts", markup=False)
        self._record = RecordView()
        # Whether the engine has formatted a record before: until then the record is shown raw at once.
        self._is_formatted = False

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "Map columns"
            yield Horizontal(self._columns, self._parts)
            yield self._record
            keys = (
                f"{'← →' if GLYPHS.is_unicode else 'left, right'} or the letter of a part   - unused   a detect   "
                f"{ENTER} save   Esc discard"
            )
            yield Static(keys, classes="keys", markup=False)

    def on_mount(self) -> None:
        set_title(self._columns, "columns")
        set_title(self._parts, "parts")
        self._show()
        self._columns.highlighted = 0
        self._columns.focus()

    # -- the mapping ----------------------------------------------------------------------------------------------

    @property
    def _column(self) -> str:
        return self._found.columns[self._columns.highlighted or 0].name

    def action_assign(self, part: str) -> None:
        """Map the selected column to a part; an empty one leaves it unused."""
        self._change(assigned(self._mapping, self._column, part))

    def action_step(self, by: int) -> None:
        """Map the selected column to the next or the previous part."""
        self._change(stepped(self._mapping, self._column, by))

    def action_detect(self) -> None:
        """Use the mapping that detection finds."""
        self._change(dict(self._found.detected))

    def action_save(self) -> None:
        """Return the mapping: an empty one where detection finds the same."""
        recipe = self._edited()
        if recipe is not None:
            is_detected = self._recipe.data.format == "auto" and self._mapping == self._found.detected
            self.dismiss({} if is_detected else self._mapping)

    @on(OptionList.OptionSelected, "#parts")
    def _part_clicked(self, event: OptionList.OptionSelected) -> None:
        self._columns.focus()
        self.action_assign(PARTS[event.option_index].name)

    @on(OptionList.OptionHighlighted, "#columns")
    def _column_highlighted(self) -> None:
        self._show_parts()

    def _change(self, mapping: dict[str, str]) -> None:
        if mapping != self._mapping:
            self._mapping = mapping
            self._show()

    def _edited(self) -> Recipe | None:
        """Return the recipe with the mapping; None, and a message in the place of the record, if it has none."""
        if not self._mapping:
            self._say("No column is mapped.", "Map a prompt and a reply, or messages, or text.")
            return None
        return edit(self._recipe, {_COLUMN: self._mapping})

    # -- what is shown --------------------------------------------------------------------------------------------

    def _show(self) -> None:
        here = self._columns.highlighted
        self._columns.set_options(Option(self._column_line(n)) for n in range(len(self._found.columns)))
        self._columns.highlighted = here
        self._show_parts()
        recipe = self._edited()
        if recipe is not None:
            self.run_worker(self._preview(recipe), group="preview", exclusive=True)

    def _column_line(self, index: int) -> Content:
        column = self._found.columns[index]
        part = part_of(self._mapping, column.name)
        return Content.assemble(
            (shortened(plain(column.name), _NAME_CELLS).ljust(_NAME_CELLS), "bold" if part else ""),
            (f" {part or 'unused':<9}", "$accent" if part else "$foreground 50%"),
            (f" {plain(column.example)}", "$foreground 70%"),
        )

    def _show_parts(self) -> None:
        selected = part_of(self._mapping, self._column)
        lines = []
        for part in PARTS:
            column = self._mapping.get(part.name, "")
            style = "bold $accent" if part.name == selected else "" if column else "$foreground 70%"
            told = (plain(column), style) if column else (part.help, "$foreground 50%")
            lines.append(Option(Content.assemble((part.key, "bold $accent"), (f" {part.name:<9} ", style), told)))
        self._parts.set_options(lines)

    async def _preview(self, recipe: Recipe) -> None:
        """Show the first record as it is fed; without a tokenizer, as it is before the template."""
        session = self._workbench.session
        is_local = not remote_sources(recipe.data.source)
        try:
            if is_local and not self._is_formatted:
                self._show_raw(await asyncio.to_thread(_first, recipe, session.home))
            await self._show_formatted(session, recipe)
        except WorkbenchError as error:
            if error.kind not in _NO_TOKENS or not is_local:
                self._say(error.message, error.cure)

    async def _show_formatted(self, session: Session, recipe: Recipe) -> None:
        if session.status is None:
            await self._workbench.start_engine()
        found = await session.engine.examples(examples_request(recipe, 0, invalid=True))
        if not found:
            return
        self._is_formatted = True
        if found[0].problem:
            self._say("The first record cannot be used for training.", found[0].problem)
        else:
            set_title(self._record, "first record as formatted training text: underlined is trained")
            self._record.show(found[0])

    def _show_raw(self, item: Item | None) -> None:
        if item is not None:
            set_title(self._record, "first record, raw")
            self._record.show(item)

    def _say(self, text: str, cure: str) -> None:
        set_title(self._record, "first record")
        self._record.say(text, cure)


def _first(recipe: Recipe, home: Home) -> Item | None:
    records = load_records(recipe.data, home, kind=recipe.objective.spec.shown_as)
    return next(islice(records.items(), 1), None)
