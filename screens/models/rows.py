"""The list of models as data: those on this machine, those of the catalog, and a typed one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from workbench.errors import WorkbenchError
from workbench.models.catalog import CatalogEntry, catalog, catalog_entry
from workbench.models.hub_weights import HubWeights
from workbench.models.local import FolderFacts, read_config
from workbench.models.own_list import OwnModel, own_list_file, own_models
from workbench.models.refreshed import RefreshedList, refreshed_models
from workbench.models.sources import LocalModelFacts, local_models, local_path
from workbench.models.stored_quantization import stored_quantization
from workbench.recipe.sections.model import DEFAULT_MODEL
from workbench.storage.paths import Home

Place = Literal["here", "hub", "folder", "file"]


@dataclass(frozen=True)
class ModelRow:
    """A model of the list.

    Attributes:
        source: the value of ``model.source`` in a recipe.
        parameters: None if unknown without the weights.
        architecture: the class in transformers.
        place: on this machine, on the hub, or a typed path.
        lack: why a local model cannot be trained, in words; empty if it can.
        size_on_disk: bytes of the weights on this machine; 0 if there are none. size_on_hub: to download; 0 if unknown.
        read_from: where the facts are from, in words; empty if they are from the list that has it.
        listed: which list has it, in words; empty for a model that is only on this machine, or typed.
    """

    source: str
    place: Place
    parameters: int | None = None
    architecture: str = ""
    model_type: str = ""
    licence: str = ""
    gated: bool | None = False
    context_length: int | None = None
    dtype: str = ""
    lack: str = ""
    size_on_disk: int = 0
    size_on_hub: int = 0
    read_from: str = ""
    listed: str = ""

    @property
    def is_demo(self) -> bool:
        return self.source == DEFAULT_MODEL


_LACKS = {
    "config": "config.json is missing or damaged",
    "weights": "the weights are not downloaded yet",
    "shards": "some weight files are missing",
    "names": "the weight files have other names than transformers expects",
    "adapter": "the folder has an adapter beside the model, and transformers would load both",
    "lfs": "files are Git LFS pointers: run git lfs pull in the folder",
    "only_pickle": "the weights are pickle files, which are never loaded",
}


@dataclass(frozen=True)
class ModelLists:
    """The rows of all lists, and what is wrong in the user's own list, one sentence per mistake."""

    rows: list[ModelRow]
    mistakes: tuple[str, ...] = ()


def all_lists(home: Home) -> ModelLists:
    """Read the lists: the demo model first, then what is on this machine, the user's list, the catalog, the hub's."""
    own = own_models(home)
    local = {facts.source: _of_local(facts) for facts in local_models(home)}
    known = {row.source: row for row in (*map(_of_catalog, catalog()), *_of_refreshed(refreshed_models(home)))}
    mine = dict(_of_own(model, known.get(model.source), own_list_file(home).name) for model in own.models)
    listed = mine | {source: row for source, row in known.items() if source not in mine}
    rows = [_merged(row, local.pop(row.source)) if row.source in local else row for row in listed.values()]
    rows += local.values()
    rows.sort(key=lambda row: (not row.is_demo, row.place == "hub", row.source not in mine))
    return ModelLists(rows, own.mistakes)


def with_source(rows: list[ModelRow], source: str) -> list[ModelRow]:
    """Return the rows, with the current model second if it is not among them: a folder, a file, another hub id."""
    if any(row.source == source for row in rows):
        return rows
    own = typed_row(source) or ModelRow(source, "hub")
    return [*rows[:1], own, *rows[1:]]


def matching(rows: Iterable[ModelRow], words: str) -> list[ModelRow]:
    """Return the rows that contain all words in name, architecture or license; last, the text itself as a source."""
    wanted = words.casefold().split()
    found = [row for row in rows if all(word in _haystack(row) for word in wanted)]
    typed = typed_row(words.strip())
    if typed is not None and all(row.source != typed.source for row in found):
        found.append(typed)
    return found


def typed_row(text: str) -> ModelRow | None:
    """Return a row for a hub id or a path; None if the text is neither."""
    if "/" not in text and not text.endswith(".gguf") and not text.startswith("~"):
        return None
    try:
        path = local_path(text)
    except WorkbenchError as error:
        return ModelRow(text, "folder", lack=error.message)
    if path is None:
        entry = catalog_entry(text)
        return ModelRow(entry.id if entry else text, "hub")
    if path.is_file():
        return ModelRow(str(path), "file")
    try:
        stored = stored_quantization(read_config(path))
    except WorkbenchError as error:
        return ModelRow(str(path), "folder", lack=error.message)
    return ModelRow(str(path), "folder", dtype=stored.label if stored else "")


def _haystack(row: ModelRow) -> str:
    place = "here" if row.place == "here" else ""
    return f"{row.source} {row.architecture} {row.model_type} {row.licence} {place} {row.listed}".casefold()


def _of_catalog(entry: CatalogEntry) -> ModelRow:
    return ModelRow(
        entry.id,
        "hub",
        entry.parameters,
        entry.architecture,
        entry.model_type,
        entry.licence,
        entry.gated,
        entry.context_length,
        entry.dtype,
        listed="catalog",
    )


def _of_refreshed(newer: RefreshedList) -> Iterator[ModelRow]:
    for model in newer.models:
        stored = stored_quantization(model.config)
        yield ModelRow(
            model.id,
            "hub",
            model.parameters,
            model.architecture,
            model.model_type,
            model.licence,
            model.gated,
            model.context_length,
            stored.label if stored else model.dtype,
            read_from=f"config.json and listing on the hub, {newer.day}",
            listed=f"hub, read on {newer.day}",
        )


def _of_own(model: OwnModel, known: ModelRow | None, file: str) -> tuple[str, ModelRow]:
    """The row of an entry of the user's list, with what another list knows of it."""
    row = known or typed_row(model.source) or ModelRow(model.source, "hub")
    listed = f"{file}, line {model.line}" + (f": {model.note}" if model.note else "")
    return model.source, replace(row, listed=listed)


def _of_local(local: LocalModelFacts) -> ModelRow:
    facts = local.facts
    row = ModelRow(
        local.source, "here", licence=local.license, lack=_LACKS.get(local.missing, ""), size_on_disk=local.bytes
    )
    if facts is None:
        return row
    row = replace(
        row,
        parameters=facts.parameters,
        architecture=facts.architecture,
        model_type=facts.model_type,
        context_length=facts.context,
        dtype=_dtype(facts.config, facts.dtypes),
        read_from="its files on this machine",
    )
    return row if local.on_hub is None or facts.weight_bytes else _without_weights(row, facts, local.on_hub)


def _without_weights(row: ModelRow, facts: FolderFacts, weights: HubWeights) -> ModelRow:
    """The row of a hub model of which only the configuration is here, with what the hub has of its weights."""
    is_packed = stored_quantization(facts.config) is not None
    read = "config.json and weight headers" if weights.dtypes else "config.json and list of files"
    return replace(
        row,
        place="hub",
        lack="" if weights.files else weights.unread,
        parameters=sum(weights.dtypes.values()) if weights.dtypes and not is_packed else None,
        dtype=_dtype(facts.config, weights.dtypes),
        gated=weights.gated,
        size_on_hub=weights.bytes,
        read_from=f"{read} on the hub, {weights.day}",
    )


def _dtype(config: Mapping[str, object], dtypes: Iterable[str]) -> str:
    stored = stored_quantization(config)
    return stored.label if stored else ", ".join(dtypes)


def _merged(known: ModelRow, local: ModelRow) -> ModelRow:
    """Combine a listed model with its files on this machine, complete or not."""
    if not known.architecture:  # the list has only its name
        return replace(local, listed=known.listed)
    place: Place = "hub" if local.lack else "here"
    return replace(known, place=place, lack="", size_on_disk=local.size_on_disk)
