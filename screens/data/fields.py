"""The lines of the data form, from what the recipe says of its fields."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from screens.forms.fields import Changes, KnobSpec, Option, known_knob, number_text
from screens.widgets.plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.recipe.schema import Recipe

_KEYS = (
    "source",
    "format",
    "columns",
    "split",
    "eval_fraction",
    "template",
    "system",
    "max_length",
    "packing",
    "completion_only",
    "malformed",
)
_LABELS = {"malformed": "on bad lines"}
_CHOICE_LABELS = {"data.malformed": {"stop": "fail"}}


def data_knobs() -> Iterator[KnobSpec]:
    """A knob for each field of the data section, in the order of the form."""
    for name in _KEYS:
        yield _knob(f"data.{name}", _LABELS.get(name, name))


def _knob(path: str, label: str) -> KnobSpec:
    """A line of the form from what the recipe says of the field."""
    knob = known_knob(path)
    if path == "data.columns":
        return KnobSpec(label, path, "text", lambda _: (), _columns_text, lambda text: {path: _columns(text)})
    match knob.kind:
        case "switch":
            options = [Option("on", {path: True}), Option("off", {path: False})]
            return KnobSpec(label, path, "switch", lambda _: options, lambda recipe: str(recipe.get(path)))
        case "choice":
            names = _CHOICE_LABELS.get(path, {})
            options = [Option(names.get(choice, choice), {path: choice}) for choice in knob.choices]
            shape: Literal["choice", "cycle"] = "choice" if len(options) < 4 else "cycle"
            return KnobSpec(label, path, shape, lambda _: options, lambda recipe: str(recipe.get(path)))
        case "integer" | "number":
            number = int if knob.kind == "integer" else float
            options = [Option(number_text(number(step)), {path: number(step)}) for step in knob.steps]
            return KnobSpec(
                label,
                path,
                "steps",
                lambda _: options,
                lambda recipe: number_text(recipe.get(path)),
                lambda text: {path: _number(text, number)},
            )
    return KnobSpec(label, path, "text", lambda _: (), _text_of(path), _typed(path, knob.default is None))


def _columns_text(recipe: Recipe) -> str:
    return plain(", ".join(f"{part}={column}" for part, column in recipe.data.columns.items()))


def _columns(text: str) -> Any:
    """``prompt=title, reply=body`` as a mapping, also when it is written as in a recipe: ``{prompt: title}``.

    What is none is handed on, so that the recipe says what is allowed.
    """
    pairs = [re.fullmatch(r"\s*(\w+)\s*[=:]\s*(.*?)\s*", pair) for pair in text.strip(" {}").split(",") if pair.strip()]
    return {pair[1]: pair[2] for pair in pairs if pair} if all(pairs) else text


def _text_of(path: str) -> Any:
    def text(recipe: Recipe) -> str:
        return plain(recipe.get(path) or "")

    return text


def _typed(path: str, may_be_empty: bool) -> Any:
    def changes(text: str) -> Changes:
        return {path: None if may_be_empty and not text.strip() else text.strip()}

    return changes


def _number(text: str, number: type[int] | type[float]) -> Any:
    """The number; text that is none is handed on, so that the recipe says what is allowed."""
    try:
        return number(text)
    except ValueError:
        return text
