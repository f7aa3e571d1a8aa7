"""One line of a form: the arrows change the knob, Enter types a value, and a mistake is shown where it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.style import Style
from textual.widget import Widget
from textual.widgets import Input

from screens.widgets.glyphs import ENTER, GLYPHS
from screens.widgets.plain import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events

    from screens.forms.fields import Changes, KnobSpec, Option
    from workbench.models.skeleton import Skeleton
    from workbench.recipe.schema import Recipe

LABEL_WIDTH = 18


class ValueField(Input):
    """The field of a knob while it is typed into."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Done", key_display=ENTER, id="field.done", tooltip="Apply the value"),
        Binding("escape", "leave", "Back", id="field.leave", tooltip="Back to the form; keep the last valid value"),
    ]

    async def action_leave(self) -> None:
        assert isinstance(self.parent, KnobRow)
        await self.parent.action_stop_editing()


class KnobRow(Widget, can_focus=True):
    """A knob of the recipe. It asks for changes with :class:`KnobRow.Turned` and shows what it is given."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter",
            "edit",
            "Type a value",
            key_display=ENTER,
            id="knob.edit",
            tooltip="Type a value, or switch to the next choice",
        ),
        Binding("left,h,minus", "step(-1)", "Less", key_display="←", id="knob.less", tooltip="Next smaller value"),
        Binding("right,l,plus", "step(1)", "More", key_display="→", id="knob.more", tooltip="Next larger value"),
        Binding("shift+left", "nudge(-1)", "One less", show=False, id="knob.one_less"),
        Binding("shift+right", "nudge(1)", "One more", show=False, id="knob.one_more"),
        Binding("space", "toggle", "Next choice", show=False, id="knob.toggle"),
    ]

    auto_links = False
    """The parts that can be clicked look as they are painted, not like links."""

    class Turned(Message):
        """Somebody wants the recipe changed. The form answers with :meth:`KnobRow.refuse` where it cannot be."""

        def __init__(self, row: KnobRow, changes: Changes) -> None:
            super().__init__()
            self.row = row
            self.changes = changes

    def __init__(self, spec: KnobSpec, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.spec = spec
        self.problem = ""
        self._recipe: Recipe | None = None
        self._skeleton: Skeleton | None = None
        self._options: Sequence[Option] = spec.options(None)
        self._shown: tuple[object, ...] = ()

    # -- from outside ---------------------------------------------------------------------------------------------

    def show(self, recipe: Recipe, skeleton: Skeleton | None) -> None:
        """Take the recipe in; repaint only where this row's part of it differs."""
        if skeleton is not self._skeleton:
            self._options = self.spec.options(skeleton)
        self._recipe, self._skeleton = recipe, skeleton
        state = (
            self.spec.value(recipe),
            self.spec.note(recipe),
            tuple(o.label for o in self._options if o.is_set(recipe)),
        )
        if state != self._shown or self.problem:
            self._shown = state
            self._set_problem("")
            self.refresh()

    def refuse(self, problem: str) -> None:
        """Say what is wrong with what was typed or chosen; what was typed stays."""
        self._set_problem(plain(problem))

    def _set_problem(self, problem: str) -> None:
        self.problem = problem
        self.set_class(bool(problem), "-problem")
        self.refresh()

    # -- keys and mouse -------------------------------------------------------------------------------------------

    @property
    def is_editing(self) -> bool:
        return bool(self.query(Input))

    async def action_edit(self) -> None:
        """Open the field; a knob that cannot be typed takes its next choice."""
        if self.spec.parse is None:
            self.action_toggle()
        elif self._recipe is not None and not self.is_editing:
            field = ValueField(self.spec.value(self._recipe), compact=True, select_on_focus=True)
            await self.mount(field)
            field.focus()

    async def action_stop_editing(self) -> None:
        """Close the field; the last value that was allowed holds."""
        if self.is_editing:
            self.focus()
            await self.query(Input).remove()
            self._set_problem("")

    def action_step(self, by: int) -> None:
        if self._recipe is not None:
            self._ask(self.spec.stepped(self._recipe, self._skeleton, by))

    def action_nudge(self, by: int) -> None:
        if self._recipe is not None:
            self._ask(self.spec.nudged(self._recipe, by))

    def action_toggle(self) -> None:  # type: ignore[override]  # Textual's own takes the name of a reactive
        """The next choice, from the last on to the first."""
        if self._recipe is None or self.spec.shape == "steps" or not self._options:
            return
        here = next((i for i, option in enumerate(self._options) if option.is_set(self._recipe)), -1)
        self._ask(self._options[(here + 1) % len(self._options)].changes)

    def action_choose(self, index: int) -> None:
        """A click on one of the values."""
        self.focus()
        self._ask(self._options[index].changes)

    def _ask(self, changes: Changes) -> None:
        if changes:
            self.post_message(self.Turned(self, changes))

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        if self.spec.parse is not None and self._recipe is not None and event.value != self.spec.value(self._recipe):
            self._ask(self.spec.parse(event.value))

    @on(Input.Submitted)
    async def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if not self.problem:
            await self.action_stop_editing()

    async def on_key(self, event: events.Key) -> None:
        if event.key in ("up", "down") and self.is_editing:
            await self.action_stop_editing()

    async def on_descendant_blur(self) -> None:
        if not self.has_focus_within:
            await self.action_stop_editing()

    # -- painting -------------------------------------------------------------------------------------------------

    def render(self) -> Content:
        if self._recipe is None:
            return Content("")
        here = self.has_focus or self.is_editing
        line = Content.assemble(
            (f"{GLYPHS.pointer if here else ' '} ", "$accent"),
            (self.spec.label.ljust(LABEL_WIDTH - 2), "bold" if here else ""),
            self._value(self._recipe),
        )
        if self.problem:
            return Content("\n").join([line, Content.styled(f"  {self.problem}", "$error")])
        return line

    def _value(self, recipe: Recipe) -> Content:
        note = self.spec.note(recipe)
        tail = Content.styled(f"  {plain(note)}", "$muted") if note else Content("")
        match self.spec.shape:
            case "switch":
                on = self._options[0].is_set(recipe)
                mark = GLYPHS.checked if on else GLYPHS.unchecked
                return Content.assemble(self._clickable(f"{mark} {'on' if on else 'off'}", int(on), "$accent"), tail)
            case "cycle":
                value = self.spec.value(recipe)
                return Content.assemble(("‹ " if GLYPHS.eighths else "< ", "$muted"), (plain(value), "$accent"),
                                        (" ›" if GLYPHS.eighths else " >", "$muted"), tail)  # fmt: skip
            case "choice":
                chosen = any(option.is_set(recipe) for option in self._options)
                own = "" if chosen else f"{GLYPHS.on} {plain(self.spec.value(recipe))}"
                parts = [self._radio(index, option, recipe) for index, option in enumerate(self._options)]
                return Content.assemble(Content("  ").join(parts), (f"  {own}" if own else "", "bold $accent"), tail)
            case _:
                field = Content.styled(f"{plain(self.spec.value(recipe)):<7}", "bold $accent")
                parts = [self._step(index, option, recipe) for index, option in enumerate(self._options)]
                return Content.assemble(field, Content(" ").join(parts), tail)

    def _radio(self, index: int, option: Option, recipe: Recipe) -> Content:
        chosen = option.is_set(recipe)
        text = f"{GLYPHS.on if chosen else GLYPHS.off} {option.label}"
        return self._clickable(text, index, "bold $accent" if chosen else "")

    def _step(self, index: int, option: Option, recipe: Recipe) -> Content:
        return self._clickable(option.label, index, "bold $accent underline" if option.is_set(recipe) else "$muted")

    def _clickable(self, text: str, index: int, style: str) -> Content:
        return Content.styled(text, style).stylize(Style.from_meta({"@click": f"choose({index})"}))
