"""The lines of the data form, made from the fields of the recipe."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

from screens.forms.fields import Changes, Option, SettingSpec, known_setting, number_text
from screens.forms.path_kinds import DATASET, TEMPLATE
from screens.widgets.plain import plain
from workbench.recipe.data_sources import source_as_typed, typed_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.recipe.schema import Recipe

_KEYS = (
    "source",
    "format",
    "columns",
    "ignore",
    "split",
    "eval_fraction",
    "template",
    "system",
    "max_length",
    "packing",
    "completion_only",
    "responses",
    "reasoning",
    "malformed",
    "stopping",
)
_LABELS = {"malformed": "on bad lines"}
_PATHS = {"data.template": TEMPLATE}
_CHOICE_LABELS = {"data.malformed": {"stop": "fail"}}


def data_settings() -> Iterator[SettingSpec]:
    """Yield the settings of the data section, in the order of the form."""
    for name in _KEYS:
        yield _setting(f"data.{name}", _LABELS.get(name, name))


def _setting(path: str, label: str) -> SettingSpec:
    """Return the line of the form for a field of the recipe."""
    setting = known_setting(path)
    if path == "data.source":
        return SettingSpec(
            label,
            path,
            "text",
            lambda _: (),
            _source_text,
            lambda text: {path: typed_source(text)},
            summary=_source_summary,
            paths=DATASET,
        )
    if path == "data.columns":
        return SettingSpec(label, path, "text", lambda _: (), _columns_text, lambda text: {path: _columns(text)})
    if path == "data.ignore":
        return SettingSpec(label, path, "text", lambda _: (), _names_text, lambda text: {path: _names(text)})
    match setting.kind:
        case "switch":
            options = [Option("on", {path: True}), Option("off", {path: False})]
            return SettingSpec(label, path, "switch", lambda _: options, lambda recipe: str(recipe.get(path)))
        case "choice":
            names = _CHOICE_LABELS.get(path, {})
            options = [Option(names.get(choice, choice), {path: choice}) for choice in setting.choices]
            # All choices are shown where they fit into a line.
            shape: Literal["choice", "cycle"] = "choice" if sum(len(o.label) + 4 for o in options) < 40 else "cycle"
            return SettingSpec(label, path, shape, lambda _: options, lambda recipe: str(recipe.get(path)))
        case "integer" | "number":
            number = int if setting.kind == "integer" else float
            options = [Option(number_text(number(step)), {path: number(step)}) for step in setting.steps]
            return SettingSpec(
                label,
                path,
                "steps",
                lambda _: options,
                lambda recipe: number_text(recipe.get(path)),
                lambda text: {path: _number(text, number)},
            )
    changes = _typed(path, setting.default is None)
    return SettingSpec(label, path, "text", lambda _: (), _text_of(path), changes, paths=_PATHS.get(path))


def _source_text(recipe: Recipe) -> str:
    return plain(source_as_typed(recipe.data.source))


def _source_summary(recipe: Recipe) -> str:
    """``2 sources: a.jsonl ×2, b.jsonl`` for a list; empty for a source as text."""
    source = recipe.data.source
    if isinstance(source, str):
        return ""
    names = [PurePath(entry.source).name + (f" ×{entry.weight:g}" if entry.weight != 1 else "") for entry in source]
    return plain(f"{len(source)} sources: {', '.join(names)}" if len(source) > 1 else names[0])


def _names_text(recipe: Recipe) -> str:
    return plain(", ".join(recipe.data.ignore))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.strip(" []").split(",") if name.strip()]


def _columns_text(recipe: Recipe) -> str:
    return plain(", ".join(f"{part}={column}" for part, column in recipe.data.columns.items()))


def _columns(text: str) -> Any:
    """Parse ``prompt=title, reply=body``, or the same as in a recipe (``{prompt: title}``), into a mapping.

    Other text is returned as it is, so that the recipe says what is allowed.
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
    """Parse a number; other text is returned as it is, so that the recipe says what is allowed."""
    try:
        return number(text)
    except ValueError:
        return text
