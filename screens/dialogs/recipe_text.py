"""The current recipe as YAML: edited here or in the user's editor, and compared with a preset or a run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from rich.style import Style
from textual import on
from textual.binding import Binding, BindingType
from textual.containers import VerticalGroup, VerticalScroll
from textual.content import Content
from textual.widgets import Static, TextArea

from screens.dialogs.external_editor import edit_in_editor
from screens.dialogs.questions import YES, Choice, ChoiceDialog, Dialog
from screens.dialogs.search_dialog import Entry, SearchDialog
from screens.widgets.delay import Delay
from screens.widgets.plain import plain
from workbench.errors import WorkbenchError
from workbench.recipe import presets
from workbench.recipe.differences import all_differences, value_text
from workbench.recipe.lines import CheckedText, changed_yaml, check_text
from workbench.recipe.text import to_yaml
from workbench.runs.folder import RunFolder, all_runs

if TYPE_CHECKING:
    from rich.text import Text
    from textual.app import ComposeResult

    from screens.workbench import Workbench
    from workbench.recipe.schema import Recipe
    from workbench.storage.paths import Home

CHECK_SECONDS = 0.15
_KEYS = "^s use it   ^t {other}   ^l compare with   ^g in $EDITOR   Esc back"


class RecipeText(TextArea):
    """The YAML text; the lines with mistakes are marked."""

    def __init__(self, text: str) -> None:
        super().__init__(text, show_line_numbers=True, soft_wrap=False, compact=True)
        self._wrong: frozenset[int] = frozenset()

    def mark(self, lines: frozenset[int]) -> None:
        """Mark the lines with mistakes, counted from 1."""
        if lines != self._wrong:
            self._wrong = lines
            # Lines are kept as they were drawn until the styles or the text change.
            self.notify_style_update()
            self.refresh()

    def get_line(self, line_index: int) -> Text:
        line = super().get_line(line_index)
        if line_index + 1 in self._wrong:
            line.stylize(Style(color=self.app.theme_variables["error"], underline=True))
        return line


class RecipeTextScreen(Dialog[None]):
    """The recipe as YAML. What is typed becomes the current recipe with Ctrl+S, as one step of undo."""

    NAME = "Recipe as YAML"
    GUIDE = (
        "The current recipe as text: only what differs from the defaults, or all settings. Mistakes are listed with "
        "their lines. Ctrl+S makes it the current recipe, which {app.undo} undoes; Esc leaves without a change."
    )
    DEFAULT_CSS = """
    RecipeTextScreen > VerticalGroup { width: 108; max-width: 98%; height: 92%; max-height: 92%; padding: 0 1; }
    RecipeTextScreen TextArea, RecipeTextScreen TextArea:focus { height: 1fr; border: none; background: $surface; }
    RecipeTextScreen VerticalScroll { height: auto; max-height: 9; margin: 0; border-top: solid $border-blurred; }
    RecipeTextScreen .keys { margin-top: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "use", "Use it", id="recipe.use", tooltip="Make this text the current recipe"),
        Binding("ctrl+t", "whole", "All settings", id="recipe.whole",
                tooltip="Show all settings, or only those that differ from the defaults"),
        Binding("ctrl+l", "compare", "Compare", id="recipe.compare", tooltip="List the differences to a preset or run"),
        Binding("ctrl+g", "editor", "Editor", id="recipe.editor", tooltip="Edit the text in $VISUAL or $EDITOR"),
    ]  # fmt: skip

    def __init__(self, workbench: Workbench) -> None:
        super().__init__()
        self._workbench = workbench
        self._is_whole = False
        self._compared: tuple[str, Recipe] | None = None
        self._text = RecipeText(changed_yaml(workbench.session.recipe))
        self._first_text = self._text.text
        self._news = Static(markup=False)
        self._keys = Static(classes="keys", markup=False)
        self._check_soon = Delay(self, self._show_check, CHECK_SECONDS)

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            self._box = box
            yield self._text
            with VerticalScroll(can_focus=False):
                yield self._news
            yield self._keys

    def on_mount(self) -> None:
        self._text.focus()
        self._show_mode()
        self._check()

    def _show_mode(self) -> None:
        kind = "all settings" if self._is_whole else "what differs from the defaults"
        self._box.border_title = f"Recipe as YAML: {kind}"
        self._keys.update(_KEYS.format(other="only changed" if self._is_whole else "all settings"))

    # -- the text ---------------------------------------------------------------------------------------------------

    @on(TextArea.Changed)
    def _typed(self) -> None:
        self._check_soon.ask()

    def _show_check(self) -> None:
        self._check()

    def _check(self) -> CheckedText:
        """Read the text, mark its mistakes, and show them, or what the text changes."""
        checked = check_text(self._text.text)
        self._text.mark(frozenset(mistake.line for mistake in checked.mistakes))
        if checked.recipe is None:
            self._news.update(Content.styled(plain("\n".join(map(str, checked.mistakes)), lines=True), "$error"))
        else:
            self._news.update(self._differences(checked.recipe))
        return checked

    def _differences(self, recipe: Recipe) -> Content:
        """List what the text has otherwise than the compared recipe, or than the current one."""
        name, other = self._compared or ("the current recipe", self._workbench.session.recipe)
        lines = [
            Content.assemble(
                (f"{path:<38} ", "bold"),
                (plain(value_text(old, path)), "$muted"),
                " → ",
                (plain(value_text(new, path)), "$accent"),
            )
            for path, (old, new) in all_differences(other.as_dict(), recipe.as_dict()).items()
        ]
        head = f"{len(lines)} of its settings differ from {name}:" if lines else f"The same as {name}."
        return Content("\n").join([Content.styled(plain(head), "$muted"), *lines])

    def _replace(self, text: str) -> None:
        """Put another text in the place of this one, as one step of the field's own undo."""
        self._text.replace(text, (0, 0), self._text.document.end)
        self._text.move_cursor((0, 0))
        self._check()

    # -- its keys ----------------------------------------------------------------------------------------------------

    def action_use(self) -> None:
        """Make the text the current recipe and close, or go to its first mistake."""
        checked = self._check()
        if checked.recipe is None:
            self._text.move_cursor((checked.mistakes[0].line - 1, 0))
            return
        self._workbench.set_recipe(checked.recipe.as_dict())
        self.dismiss(None)

    def action_whole(self) -> None:
        """Show all settings, or only those that differ from the defaults."""
        checked = self._check()
        if checked.recipe is None:
            self.notify("Correct the mistakes first.", severity="warning")
            return
        self._is_whole = not self._is_whole
        was_edited = self._text.text != self._first_text
        self._replace(to_yaml(checked.recipe) if self._is_whole else changed_yaml(checked.recipe))
        if not was_edited:
            self._first_text = self._text.text
        self._show_mode()

    def action_editor(self) -> None:
        """Edit the text in the user's editor."""
        try:
            self._replace(edit_in_editor(self.app, self._text.text, ".yaml"))
        except WorkbenchError as error:
            self._workbench.show_error(error)

    def action_compare(self) -> None:
        """Choose a preset or a run, and list the differences to it."""
        self._workbench.attempt(self._choose_other(), asks=True)

    async def _choose_other(self) -> None:
        home = self._workbench.session.home
        dialog = SearchDialog("Compare with", await asyncio.to_thread(_recipes_there, home), "A preset or a run")
        chosen = await self._workbench.push_screen_wait(dialog)
        if chosen is None:
            return
        kind, _, name = chosen.partition(":")
        try:
            read = _recipe_of_run if kind == "run" else presets.load_preset
            self._compared = f"{kind} {name}", await asyncio.to_thread(read, name, home)
        except WorkbenchError as error:
            self._workbench.show_error(error)
            return
        self._check()

    def action_close(self) -> None:
        """Close without a change; ask first if the text was edited."""
        if self._text.text == self._first_text:
            self.dismiss(None)
            return

        def answered(answer: str | None) -> None:
            if answer is not None:
                self.dismiss(None)

        discard, text = Choice(YES, "Discard", "discard"), "The recipe stays as it is."
        question = ChoiceDialog("Discard the edited text?", text, [discard], no="Keep editing", is_risky=True)
        self.app.push_screen(question, answered)


def _recipes_there(home: Home) -> list[Entry]:
    """The presets, then the runs, newest first."""
    return [
        *(Entry(f"preset:{one.name}", one.name, f"preset  {one.title}") for one in presets.describe_presets(home)),
        *(Entry(f"run:{run.id}", run.label.name or run.id, f"run  {run.id}") for run in all_runs(home)),
    ]


def _recipe_of_run(name: str, home: Home) -> Recipe:
    return RunFolder(home.runs / name).recipe()
