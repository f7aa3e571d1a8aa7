"""What the app's path fields take: datasets, models, templates, folders, tables."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from screens.widgets.path_completion import PathKind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from workbench.storage.paths import Home

# These run in a thread: they read files, and import modules that the first frame does not need.


def _is_dataset(path: Path) -> bool:
    from workbench.data.rows.documents import is_document
    from workbench.data.rows.readers import can_read

    return can_read(path) or is_document(path)


def _bundled(_: Home) -> Sequence[str]:
    from workbench.data.open_source import bundled_names

    return bundled_names()


def _datasets_used(home: Home) -> Sequence[str]:
    from workbench.recipe.data_sources import source_as_typed
    from workbench.runs.library.sources_used import sources_used

    return sources_used(home, lambda recipe: source_as_typed(recipe.data.source))


def _models_used(home: Home) -> Sequence[str]:
    from workbench.runs.library.sources_used import sources_used

    return sources_used(home, lambda recipe: recipe.model.source)


def _catalog(_: Home) -> Sequence[str]:
    from workbench.models.catalog import catalog

    ids = [entry.id for entry in catalog()]
    return [*ids, *(name.partition("/")[2] for name in ids)]


def _templates(_: Home) -> Sequence[str]:
    from workbench.data.templates.named import NAMED

    return ["auto", *NAMED]


DATASET = PathKind(_is_dataset, _bundled, _datasets_used, is_mix=True)
MODEL = PathKind(lambda path: path.suffix == ".gguf", used=_models_used, is_bare=False)
CATALOG_MODEL = replace(MODEL, names=_catalog)
TEMPLATE = PathKind(lambda path: path.suffix in (".jinja", ".jinja2", ".j2"), _templates)
JSON_FILE = PathKind(lambda path: path.suffix == ".json")
TABLE = PathKind(lambda path: path.suffix in (".csv", ".parquet"))
FOLDER = PathKind()
