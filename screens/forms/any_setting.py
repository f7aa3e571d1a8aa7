"""The line of a form for any field of the recipe, made from what the schema says of it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from screens.forms.fields import (
    SettingSpec,
    choice_setting,
    known_setting,
    number_setting,
    switch_setting,
)
from screens.widgets.plain import plain
from workbench.recipe.problems import allowed_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from screens.widgets.path_completion import PathKind
    from workbench.recipe.schema import Recipe

_ROOM_FOR_CHOICES = 40


def any_setting(
    path: str, label: str, *, words: Mapping[str, str] | None = None, paths: PathKind | None = None
) -> SettingSpec:
    """Return the line for a setting by its kind.

    Args:
        words: how choices are written, where not as in the recipe.
        paths: what is completed while a path is typed.
    """
    setting = known_setting(path)
    match setting.kind:
        case "switch":
            return switch_setting(path, label)
        case "choice" if setting.choices[0] != "true":
            named = {choice: (words or {}).get(choice, choice) for choice in setting.choices}
            # All choices are shown where they fit into a line.
            is_short = sum(len(word) + 4 for word in named.values()) < _ROOM_FOR_CHOICES
            shape: Literal["choice", "cycle"] = "choice" if is_short else "cycle"
            return choice_setting(path, label, named, shape)
        case "integer" | "number":
            return replace(number_setting(path, label), note=lambda _: setting.unit)
        case "list":
            empty: list[str] | None = None if setting.default is None else []
            return _typed(path, label, _names_text(path), lambda text: parse_names(text) or empty)
        case "mapping":
            number = "whole numbers" in allowed_values(path)
            return _typed(path, label, _pairs_text(path), lambda text: parse_pairs(text, int if number else str))
    none = None if setting.default is None else ""
    return replace(_typed(path, label, _text_of(path), lambda text: text.strip() or none), paths=paths)


def _typed(path: str, label: str, value: Callable[[Recipe], str], parse: Callable[[str], Any]) -> SettingSpec:
    return SettingSpec(label, path, "text", lambda _: (), value, lambda text: {path: parse(text)})


def parse_names(text: str) -> list[str]:
    """Parse ``a, b`` or ``[a, b]``."""
    return [name.strip() for name in text.strip(" []").split(",") if name.strip()]


def parse_pairs(text: str, kind: type[int] | type[str] = str) -> Any:
    """Parse ``prompt=title, reply=body``, or the same as in a recipe (``{prompt: title}``), into a mapping.

    Other text is returned as it is, so that the recipe says what is allowed.
    """
    found: dict[str, Any] = {}
    for pair in text.strip(" {}").split(","):
        if not pair.strip():
            continue
        parts = re.fullmatch(r"\s*([^=:]+?)\s*[=:]\s*(.*?)\s*", pair)
        if parts is None:
            return text
        try:
            found[parts[1]] = kind(parts[2])
        except ValueError:
            found[parts[1]] = parts[2]
    return found


def _names_text(path: str) -> Callable[[Recipe], str]:
    return lambda recipe: plain(", ".join(map(str, recipe.get(path) or ())))


def _pairs_text(path: str) -> Callable[[Recipe], str]:
    return lambda recipe: plain(", ".join(f"{name}={value}" for name, value in recipe.get(path).items()))


def _text_of(path: str) -> Callable[[Recipe], str]:
    return lambda recipe: plain(recipe.get(path) or "")
