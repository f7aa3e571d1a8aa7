"""Chat's settings: the system prompt, and how the next token is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual import on
from textual.containers import HorizontalGroup, VerticalScroll
from textual.widgets import Checkbox, Input, Label

from screens.widgets.line_painted import Words
from screens.widgets.plain import plain_content
from workbench.engine.client.protocol import Sampling

if TYPE_CHECKING:
    from textual.app import ComposeResult

# Name in Sampling, label, what is allowed.
_NUMBERS = (
    ("temperature", "temperature", "Temperature: 0 to 5. 0 is greedy decoding."),
    ("top_p", "top-p", "Top-p: above 0, at most 1."),
    ("top_k", "top-k (0: off)", "Top-k: a whole number. 0 turns it off."),
    ("min_p", "min-p (0: off)", "Min-p: 0 to 1. 0 turns it off."),
    ("repetition_penalty", "rep. penalty", "Repetition penalty: above 0, at most 5. 1 turns it off."),
    ("max_new_tokens", "max new tokens", "Max new tokens: 1 to 32768."),
    ("seed", "seed (optional)", "Seed: a whole number. Leave empty for a random seed."),
)
_WARM = "0.7"


class _Mark(Checkbox):
    """A box with a cross in it, or none: Textual's has one either way, in another colour."""

    @property
    def BUTTON_INNER(self) -> str:  # type: ignore[override]  # noqa: N802  (Textual's name)
        return "x" if self.value else " "


class ChatSettings(VerticalScroll):
    """Fields beside the talk. ``sampling`` is what they say; a field with a mistake keeps its last allowed value."""

    DEFAULT_CSS = """
    ChatSettings Label { color: $text-muted; width: 18; }
    ChatSettings HorizontalGroup { height: 1; }
    ChatSettings Input { width: 1fr; background: $panel; }
    ChatSettings .long { width: 100%; }
    ChatSettings Checkbox { width: 100%; margin-top: 1; background: transparent; }
    ChatSettings #mistake { color: $error; height: auto; margin-top: 1; }
    """

    def __init__(self, **names: Any) -> None:
        super().__init__(can_focus=False, **names)
        self.sampling = Sampling.model_validate({})
        self._warm = _WARM

    def compose(self) -> ComposeResult:
        yield Label("system prompt (empty: none)", classes="long")
        yield Input(id="system", compact=True)
        for name, label, _ in _NUMBERS:
            with HorizontalGroup():
                yield Label(label)
                yield Input(_written(self.sampling, name), id=name, compact=True)
        yield _Mark("merged in 16-bit (faster)", id="merged", compact=True)
        yield Words(id="mistake")

    def on_mount(self) -> None:
        self.border_title = "settings"

    @property
    def system(self) -> str:
        return self.query_one("#system", Input).value.strip()

    @system.setter
    def system(self, text: str) -> None:
        self.query_one("#system", Input).value = text

    @property
    def merged(self) -> bool:
        """Whether an adapter that answers alone is to be merged into a base of 16 bits."""
        return self.query_one("#merged", Checkbox).value

    def toggle_greedy(self) -> None:
        """Temperature to 0, and back to what it was."""
        field = self.query_one("#temperature", Input)
        if self.sampling.temperature == 0:
            field.value = self._warm
        else:
            self._warm, field.value = field.value, "0"

    @on(Input.Changed)
    def _typed(self) -> None:
        mistakes = []
        for name, _, allowed in _NUMBERS:
            given = self.query_one(f"#{name}", Input).value.strip()
            try:
                value = getattr(Sampling.model_validate({name: given} if given else {}), name)
            except ValueError:
                mistakes.append(allowed)
            else:
                self.sampling = self.sampling.model_copy(update={name: value})
        self.query_one("#mistake", Words).show(plain_content(" ".join(mistakes)))


def _written(sampling: Sampling, name: str) -> str:
    value = getattr(sampling, name)
    return "" if value is None else f"{value:g}"
