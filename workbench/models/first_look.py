"""What is known about a model's weights before any of them is loaded, and from where: disk, hub or catalog."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from workbench.errors import WorkbenchError
from workbench.machine.hub import is_offline
from workbench.models.catalog import catalog_entry
from workbench.models.hub_weights import HubWeights, kept_weights_of, numbers_text
from workbench.models.local import FolderFacts, describe_folder, weight_files
from workbench.models.model_card import card_license
from workbench.models.sources import fetch_texts, find_config, find_local, local_path
from workbench.models.trees import skeleton_in_catalog
from workbench.progress import Cancelled, Report
from workbench.recipe.sections.model import ModelSection
from workbench.storage.paths import Home
from workbench.units import file_size

Where = Literal["disk", "hub", "nowhere"]


@dataclass(frozen=True)
class FirstLook:
    """What is known about a model's weights and license.

    Attributes:
        where: whether the weights are on this disk, on the hub, or neither is known.
        bytes: size of the ``files`` weight files.
        dtypes: elements in them, as stored, by safetensors' dtype name; empty if their headers were not read.
        licence: empty if unknown; gated: the hub asks to accept it first.
        read_from: what was read, in words.
        note: why something is not known, or is missing, as a sentence; empty if nothing is.
    """

    where: Where
    read_from: str
    bytes: int = 0
    files: int = 0
    dtypes: Mapping[str, int] = field(default_factory=dict)
    licence: str = ""
    gated: bool = False
    note: str = ""

    @property
    def weights_text(self) -> str:
        """``2.47 GB in 1 file on the hub (not downloaded), 1.24B BF16``; empty if nothing is known."""
        if not self.files:
            return ""
        place = "on this machine" if self.where == "disk" else "on the hub (not downloaded)"
        size = f"{file_size(self.bytes, 2)} in {self.files} file{'s' * (self.files != 1)} {place}"
        return f"{size}, {numbers_text(self.dtypes)}" if self.dtypes else size


def first_look(home: Home, model: ModelSection, progress: Report, cancelled: Cancelled) -> FirstLook:
    """What is known about a model's weights, after its configuration was found.

    The hub is asked only for a model that is neither on this machine nor in the catalog, and whose headers were not
    read before; without a network, what is known is returned with a note.
    """
    folder = find_config(home, model)
    if local_path(model.source) is not None or find_local(home, model) is not None:
        return _of_folder(folder, model)
    known = kept_weights_of(home, model)
    if known is None and skeleton_in_catalog(model) is not None:
        return _of_catalog(model)
    note = ""
    if known is None:
        known, note = _asked(home, model, progress, cancelled)
    if known is None:
        return FirstLook("nowhere", f"config.json in {folder}" if folder else "config.json", note=note)
    return _of_hub(known)


def _asked(home: Home, model: ModelSection, progress: Report, cancelled: Cancelled) -> tuple[HubWeights | None, str]:
    if is_offline():
        return None, "The weights' size and number types were not read: HF_HUB_OFFLINE is set."
    try:
        fetch_texts(home, model, progress, cancelled)
    except WorkbenchError as error:
        return None, f"The weights' size and number types were not read: {error.message}"
    return kept_weights_of(home, model), ""


def _of_folder(folder: Path | None, model: ModelSection) -> FirstLook:
    if folder is None:
        return FirstLook("nowhere", model.source)
    facts: FolderFacts = describe_folder(folder)
    files = [file for file in weight_files(folder)[0] if file.is_file()]
    entry = catalog_entry(model.source)
    return FirstLook(
        where="disk" if files else "nowhere",
        read_from=f"config.json and the headers of the weights in {folder}" if files else f"config.json in {folder}",
        bytes=facts.weight_bytes,
        files=len(files),
        dtypes=facts.dtypes,
        licence=card_license(folder) or (entry.licence if entry else ""),
        note=_LACKS.get(facts.missing, ""),
    )


_LACKS = {
    "weights": "The folder has no weights: enough to inspect and estimate, not to train.",
    "shards": "Some of the weight files that its index lists are missing.",
    "names": "Its weight files have other names than transformers expects.",
    "adapter": "The folder has an adapter beside the model, and transformers would load both.",
    "only_pickle": "Its weights are pickle files, which can run code when loaded; they are not read.",
    "lfs": "Some of its files are Git LFS pointers: run git lfs pull in the folder.",
    "tokenizer": "The folder has no tokenizer.",
}


def _of_catalog(model: ModelSection) -> FirstLook:
    entry = catalog_entry(model.source)
    return FirstLook(
        where="hub",
        read_from="the catalog of this program; the hub was not asked",
        licence=entry.licence if entry else "",
        gated=bool(entry and entry.gated),
    )


def _of_hub(known: HubWeights) -> FirstLook:
    headers = "config.json and the headers of the weights" if known.dtypes else "config.json and the list of files"
    return FirstLook(
        where="hub" if known.files else "nowhere",
        read_from=f"{headers} on the hub (commit {known.commit[:7]}, {known.day})",
        bytes=known.bytes,
        files=known.files,
        dtypes=known.dtypes,
        licence=known.licence,
        gated=known.gated,
        note=known.unread,
    )
