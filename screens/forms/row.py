"""One line of a form: the arrows change the setting, Enter types a value, and a mistake is shown below it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.style import Style
from textual.widget import Widget
from textual.widgets import Input

from screens.forms.fields import set_value
from screens.widgets.glyphs import ENTER, GLYPHS
from screens.widgets.path_field import PathField
from screens.widgets.plain import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events

    from screens.forms.fields import Changes, Option, SettingSpec
    from screens.workbench import Workbench
    from workbench.models.skeleton import Skeleton
    from workbench.recipe.schema import Recipe

LABEL_WIDTH = 18
"""Cells before the value: the cursor, the mark of a value that is not the default, and the label."""


class ValueField(Input):
    """The text field of a setting while a value is typed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Done", key_display=ENTER, id="field.done", tooltip="Apply the value"),
        Binding("escape", "leave", "Cancel", id="field.leave", tooltip="Back to the form; the value is as before"),
        Binding("ctrl+z", "leave", "Cancel", show=False),
    ]

    async def action_leave(self) -> None:
        """Close the field; the value is what it was before."""
        assert isinstance(self.parent, SettingRow)
        await self.parent.action_take_back()


class PathValueField(ValueField, PathField):
    """The text field of a setting that is a path or a source."""


class SettingRow(Widget, can_focus=True):
    """A setting of the recipe: shows its value and changes it.

    A change takes effect before the next key is handled, so that keys that arrive together each count.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter",
            "edit",
            "Type a value",
            key_display=ENTER,
            id="setting.edit",
            tooltip="Type a value; Esc afterwards takes it back",
        ),
        Binding(
            "enter", "list", "Choose", key_display=ENTER, id="setting.list", tooltip="Choose a value from the list"
        ),
        Binding("enter", "toggle", "Switch", key_display=ENTER, id="setting.switch", tooltip="Switch it on or off"),
        *(
            Binding(key, f"type('{typed}')", "Type a value", show=False)
            for key, typed in (*((digit, digit) for digit in "0123456789"), ("full_stop", "."))
        ),
        Binding("left,h,minus", "step(-1)", "Less", key_display="←", id="setting.less", tooltip="Next smaller value"),
        Binding("right,l,plus", "step(1)", "More", key_display="→", id="setting.more", tooltip="Next larger value"),
        Binding("shift+left", "nudge(-1)", "One less", show=False, id="setting.one_less"),
        Binding("shift+right", "nudge(1)", "One more", show=False, id="setting.one_more"),
        Binding("space", "toggle", "Next choice", show=False, id="setting.toggle"),
    ]

    auto_links = False
    """Clickable parts are not styled as links."""

    class ListAsked(Message):
        """The app shows the values as a list; the chosen one goes to :meth:`SettingRow.action_choose`."""

        def __init__(self, row: SettingRow) -> None:
            super().__init__()
            self.row = row

    def __init__(self, spec: SettingSpec, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.spec = spec
        self.problem = ""
        self._refused_by: Recipe | None = None
        self._recipe: Recipe | None = None
        self._skeleton: Skeleton | None = None
        self._options: Sequence[Option] = spec.options(None)
        self._shown: tuple[object, ...] = ()
        self._field: ValueField | None = None
        self._before_typing: dict[str, object] = {}
        # All changes while the text field is open are undone together.
        self._edit: object = None

    # -- from outside ---------------------------------------------------------------------------------------------

    def show(self, recipe: Recipe, skeleton: Skeleton | None) -> None:
        """Show the recipe; repaints only if this row's part of it has changed."""
        if skeleton is not self._skeleton:
            self._options = self.spec.options(skeleton)
        self._recipe, self._skeleton = recipe, skeleton
        state = (
            self.spec.value(recipe),
            self.spec.note_for(recipe, skeleton),
            self.spec.is_default(recipe),
            tuple(o.label for o in self._options if o.is_set(recipe)),
        )
        if state != self._shown:
            self._shown = state
            self.refresh()
        if self.problem and recipe is not self._refused_by:
            self._set_problem("")

    def _set_problem(self, problem: str) -> None:
        self.problem = problem
        self.set_class(bool(problem), "-problem")
        self.refresh()

    # -- keys and mouse -------------------------------------------------------------------------------------------

    @property
    def is_editing(self) -> bool:
        """Whether the text field is open."""
        return self._field is not None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        can_be_typed = self.spec.parse is not None
        match action:
            case "edit":
                return can_be_typed
            case "type":
                return can_be_typed and self.spec.takes_digits
            case "list":
                return not can_be_typed and self.spec.shape != "switch"
            case "toggle":
                return self.spec.shape != "steps"
        return True

    async def action_edit(self) -> None:
        """Open the text field."""
        if self._field is None:
            recipe = self._workbench.session.recipe
            self._before_typing, self._edit = {}, object()
            field = self._field = self._new_field(self.spec.value(recipe))
            await self.mount(field)
            field.select_all()
            self.screen.set_focus(field)

    async def action_type(self, text: str) -> None:
        """Open the text field with what was typed in the place of the value."""
        await self.action_edit()
        assert self._field is not None
        self._field.replace(text, 0, len(self._field.value))

    def action_list(self) -> None:
        """Choose a value from a list."""
        self.post_message(self.ListAsked(self))

    @property
    def choices(self) -> tuple[list[str], int]:
        """The values that can be chosen, and the place of the one that is set; -1 for another value."""
        recipe = self._workbench.session.recipe
        here = next((i for i, option in enumerate(self._options) if option.is_set(recipe)), -1)
        return [option.label for option in self._options], here

    def _new_field(self, value: str) -> ValueField:
        if self.spec.paths is not None:
            return PathValueField(value, kind=self.spec.paths, compact=True, select_on_focus=False)
        return ValueField(value, compact=True, select_on_focus=False)

    async def action_stop_editing(self) -> None:
        """Close the text field; the last valid value is kept."""
        self.screen.set_focus(self)
        await self._close_field()

    async def action_take_back(self) -> None:
        """Close the text field; the value is what it was before."""
        field, self._field = self._field, None
        self.screen.set_focus(self)
        self._change(self._before_typing)
        self._edit = None
        self._set_problem("")
        if field is not None:
            await field.remove()

    async def _close_field(self) -> None:
        if self._field is not None:
            field, self._field = self._field, None
            # Its last change may not have been told yet.
            self._take(field.value)
            self._edit = None
            await field.remove()
            self._set_problem("")

    def action_step(self, by: int) -> None:
        """Change to the next larger or smaller value."""
        self._change(self.spec.stepped(self._workbench.session.recipe, self._skeleton, by))

    def action_nudge(self, by: int) -> None:
        """Change by one."""
        self._change(self.spec.nudged(self._workbench.session.recipe, by))

    def action_toggle(self) -> None:  # type: ignore[override]  # Textual's own takes the name of a reactive
        """Change to the next choice; after the last comes the first."""
        if self.spec.shape == "steps" or not self._options:
            return
        _, here = self.choices
        self._change(self._options[(here + 1) % len(self._options)].changes)

    def action_choose(self, index: int) -> None:
        """Change to the value that was clicked."""
        self.screen.set_focus(self)
        self._change(self._options[index].changes)

    @property
    def _workbench(self) -> Workbench:
        return cast("Workbench", self.app)

    def _change(self, changes: Changes) -> None:
        """Change the recipe, or show what is wrong with the value; the typed text stays."""
        if changes and (problems := self._workbench.set_recipe(changes, self._edit)):
            self._refused_by = self._workbench.session.recipe
            self._set_problem(plain(" ".join(f"{problem.given}; {problem.allowed}." for problem in problems)))

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        if self._field is not None:
            self._take(event.value)

    def _take(self, text: str) -> None:
        """Set the value that was typed."""
        if self.spec.parse is None:
            return
        recipe = self._workbench.session.recipe
        if text == self.spec.value(recipe):
            self._set_problem("")
            return
        changes = self.spec.parse(text)
        self._before_typing = {path: set_value(recipe, path) for path in changes} | self._before_typing
        self._change(changes)

    @on(Input.Submitted)
    async def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._take(event.value)
        # A key after Enter may have moved on already.
        if not self.problem and self.has_focus_within:
            await self.action_stop_editing()

    async def on_key(self, event: events.Key) -> None:
        if event.key in ("up", "down") and self.is_editing:
            await self.action_stop_editing()

    async def on_descendant_blur(self) -> None:
        if not self.has_focus_within:
            await self._close_field()

    # -- painting -------------------------------------------------------------------------------------------------

    def render(self) -> Content:
        if self._recipe is None:
            return Content("")
        here = self.has_focus or self.is_editing
        line = Content.assemble(
            (GLYPHS.pointer if here else " ", "$accent"),
            (" " if self.spec.is_default(self._recipe) else GLYPHS.changed, "$accent"),
            (self.spec.label.ljust(LABEL_WIDTH - 2), "bold" if here else ""),
            self._value(self._recipe),
        )
        if self.problem:
            return Content("\n").join([line, Content.styled(f"  {self.problem}", "$error")])
        return line

    def _value(self, recipe: Recipe) -> Content:
        note = self.spec.note_for(recipe, self._skeleton)
        tail = Content.styled(f"  {plain(note)}", "$muted") if note else Content("")
        match self.spec.shape:
            case "switch":
                on = self._options[0].is_set(recipe)
                mark = GLYPHS.checked if on else GLYPHS.unchecked
                return Content.assemble(self._clickable(f"{mark} {'on' if on else 'off'}", int(on), "$accent"), tail)
            case "cycle":
                value = self.spec.value(recipe)
                return Content.assemble(("‹ " if GLYPHS.is_unicode else "< ", "$muted"), (plain(value), "$accent"),
                                        (" ›" if GLYPHS.is_unicode else " >", "$muted"), tail)  # fmt: skip
            case "choice":
                chosen = any(option.is_set(recipe) for option in self._options)
                own = "" if chosen else f"{GLYPHS.on} {plain(self.spec.value(recipe))}"
                parts = [self._radio(index, option, recipe) for index, option in enumerate(self._options)]
                return Content.assemble(Content("  ").join(parts), (f"  {own}" if own else "", "bold $accent"), tail)
            case _:
                value = self.spec.summary(recipe) or self.spec.value(recipe)
                field = Content.styled(f"{plain(value):<7}", "bold $accent")
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
