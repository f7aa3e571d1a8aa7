"""Whether the weights of a recipe's model are on this machine, or how many bytes have to be downloaded first."""

import shutil
from dataclasses import dataclass

from workbench.machine.hub import token_place
from workbench.models.catalog import CatalogEntry, catalog_entry
from workbench.models.local import hub_cache, weight_files
from workbench.models.sources import find_local, local_path
from workbench.recipe.sections.model import ModelSection
from workbench.storage.paths import Home
from workbench.units import size_in

_BYTES_PER_PARAMETER = {"float32": 4}


@dataclass(frozen=True)
class ModelFiles:
    """Where the weights of a model are.

    Attributes:
        is_here: they are complete on this machine, or in a file that is converted at the start.
        bytes: their size on disk, or that of the download; None if unknown.
        problem: why they cannot be downloaded; empty if nothing is known to prevent it.
    """

    is_here: bool
    bytes: int | None = None
    problem: str = ""


def model_files(home: Home, model: ModelSection) -> ModelFiles:
    """Look for the weights of a model. Reads the disk; call it in a thread.

    Raises:
        WorkbenchError: the source is a path that does not exist, or neither a path nor a hub id.
    """
    if local := find_local(home, model):
        files, _ = weight_files(local.folder)
        return ModelFiles(True, sum(file.stat().st_size for file in files if file.exists()) or None)
    path = local_path(model.source)
    if path is not None:
        return ModelFiles(True, path.stat().st_size if path.is_file() else None)
    entry = catalog_entry(model.source)
    if entry is None:
        return ModelFiles(False)
    size = entry.parameters * _BYTES_PER_PARAMETER.get(entry.dtype, 2)
    return ModelFiles(False, size, _no_access(entry) or _no_room(size))


def _no_access(entry: CatalogEntry) -> str:
    """Say that a download needs a token and there is none; empty if it may work."""
    if not entry.gated or token_place():
        return ""
    return f"{entry.id} is gated: accept its license on huggingface.co and set HF_TOKEN, then restart."


def _no_room(size: int) -> str:
    """Say that the disk of the hub cache is too full for a download; empty if it is not, or unreadable."""
    cache = hub_cache()
    existing = next((parent for parent in (cache, *cache.absolute().parents) if parent.exists()), None)
    if existing is None:
        return ""
    free = shutil.disk_usage(existing).free
    if size <= free:
        return ""
    return f"The download needs {size_in('GB', size)}, only {size_in('GB', free)} are free at {cache}."
