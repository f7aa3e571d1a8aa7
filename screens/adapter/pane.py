"""Adapter: the settings of the recipe as a form, with their cost beside it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message

from screens.adapter.cost_panel import CostPanel
from screens.adapter.fields import form
from screens.adapter.step_tracer import StepTracer
from screens.dialogs.questions import YES, Choice, ChoiceDialog, LineDialog
from screens.forms.help import explanation, line_help
from screens.forms.sections import SectionedForm
from screens.shell.cost_view import Outlook, SuggestedChange, costs_of, outlook_of, speed_advice_of
from screens.widgets.delay import Delay
from screens.widgets.pane import Pane, beside
from screens.widgets.paragraph import Paragraph
from screens.widgets.plain import plain
from workbench.errors import WorkbenchError
from workbench.estimate.memory_text import parse_memory
from workbench.units import gib

if TYPE_CHECKING:
    from collections.abc import Mapping

    from textual.app import ComposeResult
    from textual.widget import Widget

    from screens.messages import RecipeChanged, SampleTaken, SkeletonChanged
    from workbench.estimate import Price
    from workbench.estimate.peak import Peak
    from workbench.machine.memory_budget import MemoryBudget


OUTLOOK_SECONDS = 0.15
"""The pause after a keystroke before other settings are priced."""


class _OutOfDate(Exception):  # noqa: N818
    """The recipe that is priced is no longer the current one."""


class StepTraced(Message, bubble=False):
    """A step was traced, or could not be: the predicted peak may have changed."""


class AdapterPane(Pane):
    """The form, the cost, and the help of the selected setting."""

    NAME = "Adapter"
    GUIDE = (
        "All settings of the adapter and of training memory. The arrows change the selected setting, digits or Enter "
        "type a value (Esc takes it back), and the cost beside it updates at once; F2 to F8 open the tabs. The line "
        "at the bottom explains the selected setting. If the run does not fit, {adapter.fit} applies the cheapest "
        "change that makes it fit and {adapter.others} lists the other options. PageUp and PageDown move by section, "
        "Enter unfolds one and z folds it, {adapter.find} finds a setting of any tab by its name or its help. "
        "{adapter.fast} applies the fastest micro-batch and checkpointing that fit, at the same effective batch; with "
        "auto the run chooses them. {adapter.memory} checks the fit against a memory limit. {adapter.catalog_fit} "
        "lists the models that these settings can train here."
    )
    DEFAULT_CSS = beside(__file__)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("F", "fit", "Make it fit", id="adapter.fit", tooltip="Apply the cheapest change that makes it fit"),
        Binding("S", "fast", "Make it fast", id="adapter.fast",
                tooltip="Apply the fastest settings that fit, at the same effective batch"),
        Binding("O", "other_fits", "Other options", show=False, id="adapter.others",
                tooltip="List all single changes that make it fit, cheapest first"),
        Binding("V", "memory", "Memory", id="adapter.memory", tooltip="Check the fit against a memory limit"),
        Binding("W", "catalog_fit", "What fits", id="adapter.catalog_fit",
                tooltip="List the catalog models that these settings can train in this memory"),
        Binding("slash", "app.find_setting", "Find setting", key_display="/", show=False, id="adapter.find",
                tooltip="Find a setting of any tab by its name or its help, and go there"),
        Binding("question_mark", "explain", "Explain", key_display="?", id="adapter.explain",
                tooltip="Explain the selected setting and its allowed values"),
    ]  # fmt: skip

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._form = SectionedForm(form(), id="adapter-settings")
        self._panel = CostPanel()
        self._help = Paragraph(id="adapter-help")
        self._suggested_fix: SuggestedChange | None = None
        self._price: Price | None = None
        self._outlook: Outlook | None = None
        self._outlook_soon = Delay(self, self._look_ahead, OUTLOOK_SECONDS)
        self._budget: MemoryBudget | None = None
        self._tracer: StepTracer | None = None

    def compose(self) -> ComposeResult:
        with Horizontal(id="adapter-body"):
            with Vertical(id="adapter-form") as box:
                box.border_title = "Adapter"
                yield self._form
            with VerticalScroll(id="adapter-cost", can_focus=False) as costs:
                costs.border_title = "Cost"
                yield self._panel
        yield self._help

    def first_focus(self) -> Widget:
        return self._form.selected

    # -- the session ----------------------------------------------------------------------------------------------

    def on_shown(self) -> None:
        self._show()

    def on_hidden(self) -> None:
        self._outlook_soon.cancel()

    def on_recipe_changed(self, _: RecipeChanged) -> None:
        self._show(moved=True)

    def on_skeleton_changed(self, _: SkeletonChanged) -> None:
        self._show()

    def on_sample_taken(self, _: SampleTaken) -> None:
        """Repaint if free memory has changed by more than what is shown."""
        if self._budget is None or _differs(self._budget, self.session.budget):
            self._show_costs(moved=False)

    def _show(self, *, moved: bool = False) -> None:
        recipe, skeleton = self.session.recipe, self.session.skeleton
        self._form.show(recipe, skeleton)
        self._show_help()
        self._show_costs(moved=moved)

    def _show_costs(self, *, moved: bool) -> None:
        self._budget = self.session.budget
        costs = costs_of(self.session)
        self._suggested_fix = costs.suggested_fix
        self._price = costs.price
        self._panel.show(costs, moved=moved)
        if costs.price is not None:
            self._outlook_soon.ask()
        else:
            self._outlook_soon.cancel()
            self._outlook_is(None)

    def _look_ahead(self) -> None:
        self.run_worker(self._find_outlook(), exclusive=True, group="outlook")

    async def _find_outlook(self) -> None:
        session, priced = self.session, self._price
        if priced is None:
            return

        def traced(*asked: Any) -> Peak | None:
            if session.recipe is not priced.recipe:
                raise _OutOfDate
            return session.traces(*asked)

        # A change of the recipe asks again; until then the key that made it needs the processor.
        with suppress(_OutOfDate):
            self._outlook_is(await asyncio.to_thread(outlook_of, priced.looked_up_in(traced)))
            self._trace_step()

    def _trace_step(self) -> None:
        """Trace a step to replace an estimated peak, unless a live run needs the processor."""
        session, priced = self.session, self._price
        if priced is None or session.is_live or not self.workbench.trace_steps:
            return
        recipes = priced.worth_tracing
        if not recipes:
            return
        if self._tracer is None:
            self._tracer = StepTracer(session.traces, lambda: self.post_message(StepTraced()))
        if any(self._tracer.want(priced.skeleton, recipe, priced.budget.device) for recipe in recipes):
            self._panel.show_tracing(True)

    def on_step_traced(self) -> None:
        self._panel.show_tracing(False)
        if self.is_shown:
            self._show_costs(moved=False)

    def _outlook_is(self, outlook: Outlook | None) -> None:
        self._outlook = outlook
        self._panel.show_outlook(outlook)
        self.refresh_bindings()

    # -- memory ---------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "fit":
            return True if self._suggested_changes else None
        if action == "fast":
            return True if self._outlook is not None and self._outlook.faster is not None else None
        if action == "other_fits":
            return True if len(self._suggested_changes) > 1 else None
        return super().check_action(action, parameters)

    @property
    def _suggested_changes(self) -> tuple[SuggestedChange, ...]:
        """The change that makes PEFT accept the settings, or those that make them fit, cheapest first."""
        if self._suggested_fix is not None:
            return (self._suggested_fix,)
        return self._outlook.suggestions if self._outlook is not None else ()

    def action_fit(self) -> None:
        """Apply the change that makes it work, or the cheapest that makes it fit."""
        if self._suggested_changes:
            self.workbench.set_recipe(self._suggested_changes[0].changes)

    def action_fast(self) -> None:
        """Apply the fastest settings that fit, and say what was changed and why; or that none is faster."""
        # Computed again: the outlook may be of the recipe before the last key.
        faster = speed_advice_of(self.session)
        if faster is None:
            return
        words = faster.sentence
        if faster.changes:
            self.workbench.set_recipe(faster.changes)
            words = f"{words} Before: {faster.before}."
        self.notify(plain(words), title="Make it fast", markup=False)

    def action_other_fits(self) -> None:
        """Choose among the changes that make it fit."""
        offered = self._suggested_changes[:9]
        keys = [YES] if len(offered) == 1 else [str(number) for number in range(1, 10)]
        choices = [
            Choice(one, f"{change.short}, costs {change.cost}", str(number))
            for number, (one, change) in enumerate(zip(keys, offered, strict=False), 1)
        ]

        def chosen(answer: str | None) -> None:
            if answer is not None:
                self.workbench.set_recipe(offered[int(answer) - 1].changes)

        self.app.push_screen(
            ChoiceDialog("Make it fit", "Each of these changes alone makes it fit.", choices, stacked=True), chosen
        )

    def action_catalog_fit(self) -> None:
        """List the catalog models that these settings can train in this memory; one can be loaded into the recipe."""
        from screens.adapter.catalog_fit import CatalogFitScreen

        def chosen(changes: Mapping[str, object] | None) -> None:
            if changes is not None:
                self.workbench.set_recipe(changes)

        self.app.push_screen(CatalogFitScreen(self.session), chosen)

    def action_memory(self) -> None:
        """Ask for a memory limit to check the fit against."""
        typed = self.session.typed_budget
        text = (
            "Check the fit against this memory limit, such as 24 GB for a card that is sold with 24 GB. "
            "It is remembered; leave it empty to use what is free on this machine."
        )
        self.app.push_screen(LineDialog("Memory", text, gib(typed) if typed else "", "24 GB"), self._memory_typed)

    def _memory_typed(self, text: str | None) -> None:
        if text is None:
            return
        try:
            self.session.limit_memory(parse_memory(text) if text.strip() else None)
        except WorkbenchError as error:
            self.notify(plain(str(error)), severity="error", markup=False)
            return
        self._show_costs(moved=False)

    # -- the settings ------------------------------------------------------------------------------------------------

    def action_explain(self) -> None:
        """Explain the selected setting and its allowed values."""
        row = next((row for row in self._form.rows if row.has_focus_within), None)
        if row is not None:
            text = explanation(row.spec, self.session.recipe)
            self.app.push_screen(ChoiceDialog(row.spec.setting.path, text, ()))

    def on_descendant_focus(self) -> None:
        self._show_help()

    def select_setting(self, path: str) -> None:
        self._form.select_setting(path)

    def _show_help(self) -> None:
        """Show the help of the selected setting."""
        self._help.show(line_help(self._form.selected, self.session.recipe))


def _differs(one: MemoryBudget, other: MemoryBudget) -> bool:
    """Return whether free memory changed by more than 1 % of the total, or it is another memory."""
    if one.label != other.label or one.free_bytes is None or other.free_bytes is None:
        return one != other
    return abs(one.free_bytes - other.free_bytes) > 0.01 * (other.total_bytes or other.free_bytes)
