"""The lines of the data form, made from the fields of the recipe."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from screens.forms.any_setting import any_setting
from screens.forms.fields import SettingSpec
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
    "eval_records",
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
    return any_setting(path, label, words=_CHOICE_LABELS.get(path), paths=_PATHS.get(path))


def _source_text(recipe: Recipe) -> str:
    return plain(source_as_typed(recipe.data.source))


def _source_summary(recipe: Recipe) -> str:
    """``2 sources: a.jsonl ×2, b.jsonl`` for a list; empty for a source as text."""
    source = recipe.data.source
    if isinstance(source, str):
        return ""
    names = [PurePath(entry.source).name + (f" ×{entry.weight:g}" if entry.weight != 1 else "") for entry in source]
    return plain(f"{len(source)} sources: {', '.join(names)}" if len(source) > 1 else names[0])
