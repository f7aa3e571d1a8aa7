"""The tour at the first start: a model, records, and a recipe that fits this machine, on three screens."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, on
from textual.binding import Binding, BindingType
from textual.containers import VerticalGroup
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from screens.dialogs.presets import load_preset
from screens.dialogs.questions import LineDialog
from screens.forms.path_kinds import CATALOG_MODEL, DATASET
from screens.shell.fit import Fit, fits_of
from screens.shell.header import base_word, short_name, targets_word
from screens.tabs import TABS
from screens.widgets.box_screen import BoxScreen
from screens.widgets.glyphs import ENTER, GLYPHS
from screens.widgets.key_texts import keyed
from screens.widgets.paragraph import Paragraph
from screens.widgets.plain import plain, plain_content
from workbench.adapters.registry import size_words
from workbench.data.open_source import bundled_names
from workbench.errors import WorkbenchError
from workbench.models.catalog import catalog, catalog_skeleton, entry_by_short_name
from workbench.planning.start_checks import Verdict, judge
from workbench.recipe.differences import change_text
from workbench.recipe.presets import load_preset as read_preset
from workbench.recipe.sections.model import DEFAULT_MODEL
from workbench.recipe.text import edit
from workbench.units import short

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from screens.workbench import Workbench
    from workbench.recipe.schema import Recipe

_DEMO_PRESET, _DEMO_DATA = "demo", "first-mate"
_OWN = "own"  # the last line of the first two screens: an answer to type

# One model of each size is offered; these are the largest of each, in parameters.
_SIZES = (0.8e9, 2.5e9, 4.5e9, 9e9, 15e9, 36e9, 80e9)

# How often it is looked whether the hardware was read, and the seconds between.
_POLLS, _SECONDS_BETWEEN_POLLS = 20, 0.25

_HEADS = (
    "1 of 3  Which model do you want to fine-tune?",
    "2 of 3  On which records?",
    "3 of 3  What Train would start",
)
_START = "Enter starts the run. {tab.train} opens Train with this recipe and does not start."
_OPEN = "Enter opens Train with this recipe; Train says what can be done and starts the run."
_KEYS = "any tab key ({tab.models} to {tab.runs}) goes there at once   Esc "


@dataclass(frozen=True)
class Plan:
    """The recipe that the tour ends with.

    Attributes:
        verdict: whether it fits; None if that is unknown.
        changed: what was changed to make it fit, in words; empty if nothing was.
    """

    recipe: Recipe
    verdict: Verdict | None = None
    changed: str = ""

    @property
    def fits(self) -> bool:
        """Whether the recipe is known to fit."""
        return self.verdict is not None and self.verdict.may_start


def offered_models() -> list[str]:
    """The demo model, then the first model of the catalog of each size that needs no accepted license."""
    found, low = [DEFAULT_MODEL], 0.0
    for high in _SIZES:
        fitting = [one for one in catalog() if low < one.parameters <= high and not one.gated]
        if fitting and fitting[0].id not in found:
            found.append(fitting[0].id)
        low = high
    return found


def plan_of(recipe: Recipe, app: Workbench) -> Plan:
    """Price a recipe, and apply the cheapest change that makes it fit if it does not. Blocks for a moment.

    Raises:
        WorkbenchError: PEFT would refuse the adapter for this model.
    """
    session = app.session
    skeleton = catalog_skeleton(recipe.model.source)
    if skeleton is None:
        return Plan(recipe)
    verdict = judge(skeleton, recipe, session.run_budget, session.traces)
    if verdict is None or verdict.may_start or not verdict.suggestions:
        return Plan(recipe, verdict)
    changed = edit(recipe, verdict.suggestions[0].changes)
    return Plan(changed, judge(skeleton, changed, session.run_budget, session.traces), change_text(recipe, changed))


class TourScreen(BoxScreen[None]):
    """Three screens, each with an answer selected: Enter three times starts the demo."""

    NAME: ClassVar[str] = "Tour"
    GUIDE: ClassVar[str] = (
        "Choose a model and records, or type others; the last screen shows the recipe and what it needs, changed so "
        "that it fits if it did not. Enter continues, and on the last screen starts the run; {tab.train} opens "
        "Train without starting. Esc goes back, and on the first screen it closes the tour. The palette has it again."
    )
    DEFAULT_CSS = """
    TourScreen > VerticalGroup { width: 84; max-height: 96%; padding: 1 2; }
    TourScreen Paragraph { height: auto; }
    TourScreen #head { text-style: bold; }
    TourScreen OptionList, TourScreen OptionList:focus {
        height: auto; max-height: 12; border: none; background: $surface; padding: 0; margin: 1 0;
    }
    TourScreen #about { color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "next", "Next", key_display=ENTER, id="tour.next", priority=True),
        Binding("escape", "back", "Back", id="tour.back"),
        *(
            Binding(f"{number},f{number + 1}", f"leave('{tab.id}')", show=False)
            for number, tab in enumerate(TABS, 1)
        ),
    ]  # fmt: skip

    def __init__(self, app: Workbench) -> None:
        super().__init__()
        self._workbench = app
        self._page = 0
        self._models = [*offered_models(), _OWN]
        self._data = [_DEMO_DATA, *(name for name in bundled_names() if name != _DEMO_DATA), _OWN]
        self._model, self._source = self._models[0], ""
        self._fits: dict[str, Fit] = {}
        self._plan: Plan | None = None
        self._head = Paragraph(id="head")
        self._list = OptionList()
        self._about = Paragraph(id="about")

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            box.border_title = "Welcome to loraworkbench"
            yield self._head
            yield self._list
            yield self._about

    def on_mount(self) -> None:
        self._show()
        self.run_worker(self._read_fits())

    async def _read_fits(self) -> None:
        session = self._workbench.session
        for _ in range(_POLLS):
            if session.budget.free_bytes is not None:
                break
            await asyncio.sleep(_SECONDS_BETWEEN_POLLS)  # the first reading of the hardware takes a moment
        self._fits = await asyncio.to_thread(fits_of, self._models[:-1], session.recipe, session.budget, session.traces)
        if self._page == 0:
            self._show()

    # -- what is shown --------------------------------------------------------------------------------------------

    def _show(self) -> None:
        back = "skip" if self._page == 0 else "back"
        self.query_one(VerticalGroup).border_subtitle = f"{ENTER} next   {keyed(_KEYS)}{back}"
        self._head.show(Content(_HEADS[self._page]))
        at = self._list.highlighted or 0
        self._list.display = self._page < 2
        if self._page == 0:
            self._fill([self._model_line(source) for source in self._models], at)
            self._about.show(Content("Type to name another one; Models lists all of the catalog with what they need."))
        elif self._page == 1:
            self._fill([self._data_line(name) for name in self._data], at)
            self._about.show(
                Content("JSONL, CSV, Parquet, Excel or a Hugging Face dataset; Data shows how each record is read.")
            )
        else:
            self._about.show(self._plan_text())
            self.set_focus(None)

    def _fill(self, lines: list[Content], at: int) -> None:
        self._list.clear_options()
        self._list.add_options(map(Option, lines))
        self._list.highlighted = min(at, len(lines) - 1)
        self._list.focus()

    def _model_line(self, source: str) -> Content:
        if source == _OWN:
            return Content.assemble(
                ("another", "bold"), "  a name of the catalog, a folder, a .gguf file or owner/name"
            )
        entry = next((one for one in catalog() if one.id == source), None)
        fit = self._fits.get(source)
        size = short(entry.parameters) if entry is not None else ""
        note = "  the demo: any machine" if source == DEFAULT_MODEL else ""
        # Without how much is free, which is the same on each line.
        needs = fit.sentence.partition(",")[0].partition(" of ")[0].rstrip(".") if fit is not None else ""
        words = (needs, f"${fit.color}") if fit is not None else ("", "")
        return Content.assemble((f"{short_name(source):<28}", "bold"), f"{size:>6}  ", words, (note, "$text-muted"))

    def _data_line(self, name: str) -> Content:
        if name == _OWN:
            return Content.assemble(("your own", "bold"), "  a file, a folder or a Hugging Face dataset")
        return Content.assemble((f"{name:<20}", "bold"), ("bundled", "$text-muted"))

    def _plan_text(self) -> Content:
        plan = self._plan
        if plan is None:
            return Content("Estimating its memory ...")
        recipe, sign = plan.recipe, f" {GLYPHS.separator} "
        adapter = sign.join((base_word(recipe, None), size_words(recipe.adapter), plain(targets_word(recipe))))
        lines = [
            Content.assemble(("model    ", "$text-muted"), (plain(recipe.model.source), "bold")),
            Content.assemble(("records  ", "$text-muted"), (plain(recipe.data.source), "bold")),
            Content.assemble(("adapter  ", "$text-muted"), adapter),
        ]
        if plan.changed:
            lines.append(Content.assemble(("changed  ", "$text-muted"), (plain(plan.changed), "$warning")))
        if plan.verdict is not None:
            color = "success" if plan.fits else "error"
            lines.append(plain_content(plan.verdict.sentence, f"${color}"))
        lines.append(Content(f"\n{keyed(_START) if plan.fits else _OPEN}"))
        return Content("\n").join(lines)

    # -- keys -----------------------------------------------------------------------------------------------------

    def action_next(self) -> None:
        """Take the selected answer and go to the next screen; at the end use the recipe, and start it if it fits."""
        at = self._list.highlighted or 0
        if self._page < 2 and (self._models, self._data)[self._page][at] == _OWN:
            self._ask("")
        elif self._page == 0:
            self._take_model(self._models[at])
        elif self._page == 1:
            self._take_source(self._data[at])
        elif self._plan is not None:
            self._use(self._plan.recipe)
            self.dismiss(None)
            self._workbench.attempt(self._open_train(start=self._plan.fits))

    def on_key(self, event: events.Key) -> None:
        """Take what is typed as the start of an answer that is not listed."""
        typed = event.character
        if self._page < 2 and typed and (typed.isalpha() or typed in "/~."):
            event.stop()
            self._ask(typed)

    def _ask(self, typed: str) -> None:
        if self._page == 0:
            title, text = (
                "Your model",
                "A name of the catalog, a folder, a .gguf file or a Hugging Face model (owner/name).",
            )
            kind, take = CATALOG_MODEL, self._take_model
        else:
            title, text = "Your records", "A file, a folder or a Hugging Face dataset (owner/name)."
            kind, take = DATASET, self._take_source
        self.app.push_screen(LineDialog(title, text, typed, paths=kind, is_begun=True), take)

    # Of a click: the list never gets Enter.
    @on(OptionList.OptionSelected)
    def _clicked(self) -> None:
        self.action_next()

    def _take_model(self, source: str | None) -> None:
        if source and source.strip():
            entry = entry_by_short_name(source.strip())
            self._model = entry.id if entry is not None else source.strip()
            self._go_to(1)

    def _take_source(self, source: str | None) -> None:
        if source and source.strip():
            self._source, self._plan = source.strip(), None
            self._go_to(2)
            self.run_worker(self._price(), exclusive=True, group="price")

    async def _price(self) -> None:
        try:
            self._plan = await asyncio.to_thread(plan_of, self._recipe(), self._workbench)
        except WorkbenchError as error:
            self._workbench.show_error(error)
            self._plan = Plan(self._recipe())
        self._show()

    @property
    def _is_demo(self) -> bool:
        return self._model == DEFAULT_MODEL and self._source == _DEMO_DATA

    def _recipe(self) -> Recipe:
        if self._is_demo:
            return read_preset(_DEMO_PRESET, self._workbench.session.home)
        return edit(self._workbench.session.recipe, {"model.source": self._model, "data.source": self._source})

    def _use(self, recipe: Recipe) -> None:
        if self._is_demo and recipe == self._recipe():
            load_preset(self._workbench, _DEMO_PRESET)
        else:
            self._workbench.set_recipe(recipe.as_dict())

    def action_back(self) -> None:
        """Go back to the screen before; from the first one, close the tour."""
        if self._page:
            self._go_to(self._page - 1)
        else:
            self._close()

    def action_leave(self, tab: str) -> None:
        """Close the tour and open a tab with what was chosen so far; the demo's model brings the demo's recipe."""
        if self._plan is not None and self._page == 2:
            self._use(self._plan.recipe)
        elif self._page:
            changes: dict[str, Any] = {"model.source": self._model}
            if self._model == DEFAULT_MODEL:
                load_preset(self._workbench, _DEMO_PRESET)
            else:
                self._workbench.set_recipe(changes)
        self._close(tab)

    async def _open_train(self, *, start: bool) -> None:
        await self._workbench.action_show_tab("train")
        if start and self._workbench.pane_in_front is not None:
            await self._workbench.pane_in_front.run_action("start")

    def _go_to(self, page: int) -> None:
        self._page = page
        self._list.highlighted = 0
        self._show()

    def _close(self, tab: str = "") -> None:
        self.dismiss(None)
        if tab:
            self._workbench.attempt(self._workbench.action_show_tab(tab))
