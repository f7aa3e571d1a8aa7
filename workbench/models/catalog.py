"""Reads the shipped model catalog: names, licenses, sizes and module trees. Needs no network and no torch.

:mod:`workbench.models.build_catalog` generates ``presets/models/index.json`` (the list) and ``trees/*.json`` (one
module tree per architecture and size) from ``published.json``.
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
        id: its Hugging Face id.
        family: name of the family, such as ``Qwen``.
        licence: empty if unknown.
        gated: downloading the weights requires a token and accepting the license on the hub; None if unknown.
        parameters: tied ones count once.
        context_length: in tokens; None if unlimited.
        dtype: dtype of the published weights.
        tree: name of the file with the module tree, which models of one architecture and size share.
        aliases: other ids of the same repository.
    """

    id: str
    family: str
    architecture: str
    model_type: str
    licence: str
    gated: bool | None
    parameters: int
    context_length: int | None
    dtype: str
    tree: str
    aliases: tuple[str, ...] = ()


@cache
def catalog() -> tuple[CatalogEntry, ...]:
    """All models, the demo model first, the others by family."""
    entries = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
    return tuple(CatalogEntry(**{**entry, "aliases": tuple(entry.get("aliases", ()))}) for entry in entries)


def catalog_entry(model_id: str) -> CatalogEntry | None:
    """The entry with this Hugging Face id or alias; None if the model is not in the catalog."""
    return _by_id().get(model_id.casefold())


def entry_by_short_name(name: str) -> CatalogEntry | None:
    """The entry whose id ends with this name after its owner; None if there is no such entry, or more than one."""
    found = {id(entry): entry for one, entry in _by_id().items() if one.partition("/")[2] == name.casefold()}
    return next(iter(found.values())) if len(found) == 1 else None


def catalog_skeleton(model_id: str) -> Skeleton | None:
    """The module tree of a model in the catalog; None for any other model."""

    entry = catalog_entry(model_id)
    return None if entry is None else _tree(entry.tree)


@cache
def _by_id() -> dict[str, CatalogEntry]:
    return {name.casefold(): entry for entry in catalog() for name in (entry.id, *entry.aliases)}


@cache
def _tree(name: str) -> Skeleton:
    return skeleton_from_json(json.loads((FOLDER / "trees" / f"{name}.json").read_text(encoding="utf-8")))
