"""Questions and answers over a screen: choose one of a few, type a line, read an error to its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from textual import events, on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalGroup, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from screens.widgets.path_field import PathField
from screens.widgets.plain import plain, plain_content, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual.app import ComposeResult

    from screens.widgets.path_completion import PathKind
    from workbench.errors import WorkbenchError

Answer = TypeVar("Answer")

# Cells of a run's name in a title.
_NAME_WIDTH = 40

_STYLES = """
Dialog { align: center middle; background: $background 60%; }
Dialog > VerticalGroup {
    width: 72; max-width: 94%; max-height: 90%;
    border: round $border; background: $surface; padding: 1 2;
    border-title-style: bold; border-title-color: $foreground;
}
Dialog VerticalScroll { height: auto; max-height: 14; margin-bottom: 1; }
Dialog Horizontal { height: auto; align-horizontal: right; }
Dialog Button { margin-left: 1; min-width: 8; }
Dialog #stacked { align-horizontal: left; height: auto; }
Dialog #stacked Button { margin-left: 0; width: 100%; content-align-horizontal: left; text-align: left; }
Dialog .problem { color: $error; height: auto; }
Dialog .keys { color: $text-muted; height: auto; }
"""


class Dialog(ModalScreen[Answer | None], Generic[Answer]):
    """A box in the middle of the screen; ``escape`` closes it with no answer."""

    DEFAULT_CSS = _STYLES
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Back", id="dialog.close", tooltip="Close without choosing"),
        Binding("left,up", "app.focus_previous", show=False),
        Binding("right,down", "app.focus_next", show=False),
    ]

    def action_close(self) -> None:
        """Close without an answer."""
        self.dismiss(None)


YES, NO = "y", "n"
"""The keys of the answers to a question."""


@dataclass(frozen=True)
class Choice:
    """One answer: the key that chooses it, its label, and the value that is returned."""

    key: str
    label: str
    value: str | None


class ChoiceDialog(Dialog[str]):
    """A question with a few answers, the last of which is no: ``n`` or Esc, which return None.

    A question with one other answer has it on ``y``. The answer that loses nothing is preselected.

    Args:
        choices: the other answers.
        no: the label of the last answer.
        is_risky: whether the first of ``choices`` loses something; "no" is preselected then.
        stacked: show the answers below each other, for long labels.
    """

    def __init__(
        self,
        title: str,
        text: str,
        choices: Sequence[Choice],
        *,
        no: str = "Back",
        is_risky: bool = False,
        stacked: bool = False,
    ) -> None:
        super().__init__()
        self._title = plain(title)
        self._text = text
        self._choices = (*choices, Choice(NO, no, None))
        self._first = len(choices) if is_risky else 0
        self._stacked = stacked
        self._buttons = [
            Button(
                plain_content(self._label(choice)),
                id=f"choice-{index}",
                compact=True,
                variant="primary" if index == self._first else "default",
            )
            for index, choice in enumerate(self._choices)
        ]

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            box.border_title = plain_content(self._title).markup
            with VerticalScroll(can_focus=False):
                yield Static(plain_content(self._text, lines=True))
            with VerticalGroup(id="stacked") if self._stacked else Horizontal():
                yield from self._buttons

    def _label(self, choice: Choice) -> str:
        return f"{choice.key}  {choice.label}" if self._stacked else f"{choice.label} ({choice.key})"

    def on_mount(self) -> None:
        self._buttons[self._first].focus()

    def on_key(self, event: events.Key) -> None:
        typed = event.character or ""
        by_key = {choice.key: choice for choice in self._choices}
        choice = by_key.get(typed) or by_key.get(typed.lower())
        if choice is not None:
            event.stop()
            self.dismiss(choice.value)

    @on(Button.Pressed)
    def _chosen(self, event: Button.Pressed) -> None:
        self.dismiss(self._choices[int(str(event.button.id).removeprefix("choice-"))].value)


class LineDialog(Dialog[str]):
    """One line of text: a path, an expression, an amount of memory.

    Args:
        check: returns what is wrong with a line, or an empty string; the dialog stays open until it does.
        paths: what is completed while a path is typed; None if the line is no path.
        is_begun: the user has typed ``value``, and what is typed next is appended; else it replaces ``value``.
    """

    def __init__(
        self,
        title: str,
        text: str,
        value: str = "",
        placeholder: str = "",
        check: Callable[[str], str] | None = None,
        paths: PathKind | None = None,
        is_begun: bool = False,
    ) -> None:
        super().__init__()
        self._title = title
        self._text = text
        self._check = check
        self._field: Input = Input(value) if paths is None else PathField(value, kind=paths)
        self._field.placeholder = placeholder
        self._field.compact = True
        self._field.select_on_focus = not is_begun
        self._problem = Static(classes="problem", markup=False)

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            box.border_title = plain_content(self._title).markup
            yield Static(plain_content(self._text, lines=True))
            yield self._field
            if isinstance(self._field, PathField):
                yield Static("Tab complete   Ctrl+O browse", classes="keys", markup=False)
            yield self._problem

    @on(Input.Submitted)
    def _typed(self, event: Input.Submitted) -> None:
        problem = self._check(event.value) if self._check else ""
        if problem:
            self._problem.update(plain_content(problem))
        else:
            self.dismiss(event.value)


class ErrorDialog(Dialog[None]):
    """An error in full, and what to do about it. ``c`` copies it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "close", "Back", id="error.close"),
        Binding("y", "copy", "Copy", id="error.copy", tooltip="Copy the text to the clipboard"),
    ]

    def __init__(self, error: WorkbenchError) -> None:
        super().__init__()
        self._error = error
        self._back = Button("Back (Esc)", id="close", compact=True, variant="primary")

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            box.border_title = "Error"
            with VerticalScroll():
                yield Static(plain_content(self._error.message, lines=True))
                if self._error.cure:
                    yield Static(plain_content(f"\n{self._error.cure}", "bold", lines=True))
            with Horizontal():
                yield Button("Copy (y)", id="copy", compact=True)
                yield self._back

    def on_mount(self) -> None:
        self._back.focus()

    def action_copy(self) -> None:
        """Copy the error to the clipboard."""
        self.app.copy_to_clipboard(plain(self._error, lines=True))
        self.notify("Copied.", timeout=2)

    @on(Button.Pressed, "#copy")
    def _copy(self) -> None:
        self.action_copy()

    @on(Button.Pressed, "#close")
    def _close(self) -> None:
        self.action_close()


LEAVE, STOP = "leave", "stop"


def quit_dialog(run: str, queued: int = 0) -> ChoiceDialog:
    """Ask what to do with a live run before quitting.

    Args:
        run: its name.
        queued: how many runs are queued after it.
    """
    after = f" The queue keeps running too ({queued} queued)." if queued else ""
    return ChoiceDialog(
        f"Quit? {shortened(run, _NAME_WIDTH)} is still training",
        f"It keeps running without this terminal; start loraworkbench again to watch it.{after}",
        (Choice(YES, "Quit, leave it running", LEAVE), Choice("s", "Stop and save", STOP)),
        no="Stay",
    )
