"""Chat's settings: the system prompt, the tools and the sampling parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual import on
from textual.containers import HorizontalGroup, VerticalScroll
from textual.widgets import Checkbox, Input, Label

from screens.forms.path_kinds import JSON_FILE
from screens.widgets.paragraph import Paragraph
from screens.widgets.path_completion import expanded
from screens.widgets.path_field import PathField
from screens.widgets.plain import plain_content
from workbench.data.records.tool_calls import function_name, read_tools_file
from workbench.engine.client.protocol import Sampling
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

# Field of Sampling, label, allowed values.
_NUMBERS = (
    ("temperature", "temperature", "Temperature: 0 to 5. 0 is greedy decoding."),
    ("top_p", "top-p", "Top-p: above 0, at most 1."),
    ("top_k", "top-k (0: off)", "Top-k: a whole number. 0 turns it off."),
    ("min_p", "min-p (0: off)", "Min-p: 0 to 1. 0 turns it off."),
    ("repetition_penalty", "rep. penalty", "Repetition penalty: above 0, at most 5. 1 turns it off."),
    ("max_new_tokens", "max new tokens", "Max new tokens: 1 to 32768."),
    ("seed", "seed (optional)", "Seed: a whole number. Leave empty for a random seed."),
)
_TOOLS = "tools (JSON file; empty: none)"
_WARM = "0.7"


class _Mark(Checkbox):
    """A check box that is empty when it is off: Textual's own differs in color only."""

    @property
    def BUTTON_INNER(self) -> str:  # type: ignore[override]  # noqa: N802  (Textual's name)
        return "x" if self.value else " "


class ChatSettings(VerticalScroll):
    """Fields beside the conversation. ``sampling`` holds their values; an invalid field keeps its last valid one."""

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
        self.border_title = "settings"
        self._warm = _WARM
        self._system = Input(id="system", compact=True)
        self._tools_label = Label(_TOOLS, classes="long", markup=False)
        self._tools_file = PathField(kind=JSON_FILE, id="tools", compact=True)
        self.tools: tuple[dict[str, Any], ...] = ()
        self._fields = {name: Input(_written(self.sampling, name), id=name, compact=True) for name, _, _ in _NUMBERS}
        self._merged = _Mark("merged in 16-bit (faster)", id="merged", compact=True)
        self._mistake = Paragraph(id="mistake")

    def compose(self) -> ComposeResult:
        yield Label("system prompt (empty: none)", classes="long")
        yield self._system
        yield self._tools_label
        yield self._tools_file
        for name, label, _ in _NUMBERS:
            yield HorizontalGroup(Label(label), self._fields[name])
        yield self._merged
        yield self._mistake

    @property
    def system(self) -> str:
        """The system prompt; empty for none."""
        return self._system.value.strip()

    @system.setter
    def system(self, text: str) -> None:
        self._system.value = text

    def use_tools(self, tools: Sequence[dict[str, Any]]) -> None:
        """Use the tools of a conversation that is opened."""
        with self.prevent(Input.Changed):
            self._tools_file.value = ""
        self._take_tools(tools)

    def _take_tools(self, tools: Sequence[dict[str, Any]]) -> None:
        self.tools = tuple(tools)
        names = ", ".join(map(function_name, tools))
        self._tools_label.update(plain_content(f"tools: {names}" if names else _TOOLS))

    @property
    def merged(self) -> bool:
        """Whether a single adapter is merged into a 16-bit base for its replies."""
        return self._merged.value

    def toggle_greedy(self) -> bool:
        """Set the temperature to 0, or back to what it was; returns whether decoding is greedy now."""
        field = self._fields["temperature"]
        if self.sampling.temperature == 0:
            field.value = self._warm
        else:
            self._warm, field.value = field.value, "0"
        return field.value == "0"

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        mistakes = []
        if event.input is self._tools_file:
            mistakes += self._read_tools(event.value.strip())
        for name, _, allowed in _NUMBERS:
            typed = self._fields[name].value.strip()
            try:
                value = getattr(Sampling.model_validate({name: typed} if typed else {}), name)
            except ValueError:
                mistakes.append(allowed)
            else:
                self.sampling = self.sampling.model_copy(update={name: value})
        self._mistake.show(plain_content(" ".join(mistakes)))

    def _read_tools(self, file: str) -> list[str]:
        """Take the tools of a file; returns what is wrong with it. A path that is not there yet is being typed."""
        path = expanded(file)
        if path is None or not path.is_file():
            self._take_tools(())
            return ["Tools: a JSON file."] if file else []
        try:
            self._take_tools(read_tools_file(path))
        except WorkbenchError as error:
            self._take_tools(())
            return [str(error)]
        return []


def _written(sampling: Sampling, name: str) -> str:
    value = getattr(sampling, name)
    return "" if value is None else f"{value:g}"
