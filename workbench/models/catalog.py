"""The models that the workbench knows without a network: names, licences, sizes and module trees, as shipped data.

``presets/models/published.json`` holds the published facts; :mod:`workbench.models.build_catalog` makes ``index.json``
(the list) and ``trees/*.json`` (one module tree an architecture) from it. Reading needs no torch.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from workbench.models.skeleton import Skeleton
from workbench.models.skeleton_json import skeleton_from_json

FOLDER = Path(__file__).resolve().parents[2] / "presets" / "models"


@dataclass(frozen=True)
class CatalogEntry:
    """One published model.

    Attributes:
        id: its name on the Hugging Face hub.
        gated: the hub asks to accept the licence (and for a token) before the weights can be downloaded.
        parameters: logical parameters, tied ones once.
        context_length: tokens it was trained to read; None for one without a limit.
        dtype: type of the published weights.
        tree: name of the file with the module tree; models of one architecture and size share it.
        aliases: other names of the same repository.
    """

    id: str
    architecture: str
    model_type: str
    licence: str
    gated: bool
    parameters: int
    context_length: int | None
    dtype: str
    tree: str
    aliases: tuple[str, ...] = ()


@cache
def catalog() -> tuple[CatalogEntry, ...]:
    """All models, the demonstration model first, then by family."""
    entries = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
    return tuple(CatalogEntry(**{**entry, "aliases": tuple(entry.get("aliases", ()))}) for entry in entries)


def catalog_entry(model_id: str) -> CatalogEntry | None:
    """The entry of a hub id or one of its aliases; None for a model that is not in the catalog."""
    return _by_id().get(model_id.casefold())


def catalog_skeleton(model_id: str) -> Skeleton | None:
    """The module tree of a model of the catalog; None for any other."""
    entry = catalog_entry(model_id)
    return None if entry is None else _tree(entry.tree)


@cache
def _by_id() -> dict[str, CatalogEntry]:
    return {name.casefold(): entry for entry in catalog() for name in (entry.id, *entry.aliases)}


@cache
def _tree(name: str) -> Skeleton:
    return skeleton_from_json(json.loads((FOLDER / "trees" / f"{name}.json").read_text(encoding="utf-8")))
