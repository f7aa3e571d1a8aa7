"""What a model on disk is, read from its own files: no torch, no hub library, no network.

The layout of the hub's cache is that of huggingface_hub: ``models--<owner>--<name>/refs/<branch>`` holds a commit,
``snapshots/<commit>/`` the files of it.
"""

import json
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from workbench.errors import WorkbenchError
from workbench.storage.folders import entries, files_in

ORIGIN_FILE = "origin.json"
"""Beside the weights of a converted model: ``{"source", "sha256", "bytes", "license", "path", "mtime_ns"}``."""

WEIGHTS_INDEX = "model.safetensors.index.json"

# A header is a few hundred bytes a tensor. A larger one is no model but damage, or an attack on the reader's memory.
_LARGEST_HEADER = 100_000_000

Lack = Literal["", "config", "weights", "shards", "only_pickle", "tokenizer"]
"""Why a folder cannot be trained: no config.json, no weights, shards missing, weights as pickles only, no tokenizer."""

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tekken.json",
)


@dataclass(frozen=True)
class FolderFacts:
    """What a model's folder says about itself.

    ``architecture`` is the class that transformers loads (``LlamaForCausalLM``). ``weight_bytes`` is the size of the
    safetensors files; ``parameters`` counts their elements, and is None where the weights are missing or are stored
    packed by a quantiser. ``dtypes`` maps safetensors' names of types (``BF16``) to elements. ``config`` is the whole
    ``config.json``.
    """

    folder: Path
    architecture: str = ""
    model_type: str = ""
    hidden_size: int | None = None
    layers: int | None = None
    vocabulary: int | None = None
    context: int | None = None
    weight_bytes: int = 0
    parameters: int | None = None
    dtypes: dict[str, int] = field(default_factory=dict, hash=False)
    has_chat_template: bool = False
    lack: Lack = ""
    config: dict[str, Any] = field(default_factory=dict, hash=False)


def describe_folder(folder: Path) -> FolderFacts:
    """Read the facts of a model's folder; costs a few milliseconds, however large the model.

    Raises:
        WorkbenchError: ``config.json`` is there and cannot be read.
    """
    config = read_config(folder)
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else None
    sizes = {**config, **(text or {})}
    weights, incomplete = weight_files(folder)
    dtypes = _element_counts(weights)
    is_packed = "quantization_config" in config
    return FolderFacts(
        folder=folder,
        architecture=_architecture(config),
        model_type=str(config.get("model_type", "")),
        hidden_size=_integer(sizes, "hidden_size", "n_embd", "d_model"),
        layers=_integer(sizes, "num_hidden_layers", "n_layer", "num_layers"),
        vocabulary=_integer(sizes, "vocab_size"),
        context=_integer(sizes, "max_position_embeddings", "n_positions", "n_ctx"),
        weight_bytes=sum(file.stat().st_size for file in weights if file.exists()),
        parameters=sum(dtypes.values()) if dtypes and not is_packed and not incomplete else None,
        dtypes=dtypes,
        has_chat_template=_has_chat_template(folder),
        lack=what_is_lacking(folder),
        config=config,
    )


def what_is_lacking(folder: Path) -> Lack:
    """Why a folder cannot be trained as it is; empty if it can. Looks at names only."""
    if not (folder / "config.json").is_file():
        return "config"
    if lack := weight_files(folder)[1]:
        return lack
    return "" if has_tokenizer(folder) else "tokenizer"


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer's files lie in a folder. Looks at names only."""
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a folder; empty where there is none.

    Raises:
        WorkbenchError: it is no JSON object.
    """
    file = folder / "config.json"
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise WorkbenchError(
            f"{file} cannot be read: {error}.", "Copy or download the model's folder again.", kind="model_damaged"
        ) from None
    if not isinstance(config, dict):
        raise WorkbenchError(
            f"{file} has no configuration.", "Copy or download the model's folder again.", kind="model_damaged"
        )
    return config


def weight_files(folder: Path) -> tuple[list[Path], Lack]:
    """The safetensors files that hold the weights, and what is missing.

    With an index, they are the files that it names, whether there or not; without, ``model.safetensors`` or, failing
    that, every safetensors file at the top of the folder.
    """
    index = folder / WEIGHTS_INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
            files = [folder / Path(str(name)).name for name in names]
        except (OSError, ValueError, KeyError, AttributeError):
            return [], "shards"
        return files, "" if files and all(file.is_file() for file in files) else "shards"
    single = folder / "model.safetensors"
    if single.is_file():
        return [single], ""
    files = [file for file, _ in files_in(folder)]
    if others := [file for file in files if file.suffix == ".safetensors"]:
        return others, ""
    return [], "only_pickle" if any(file.suffix == ".bin" for file in files) else "weights"


def safetensors_header(file: Path) -> dict[str, Any]:
    """The header of a safetensors file: tensor name → ``{"dtype", "shape", "data_offsets"}``.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no safetensors file.
    """
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= _LARGEST_HEADER:
            raise ValueError(f"{file.name} is not a safetensors file, or is damaged")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError(f"{file.name} is not a safetensors file, or is damaged")
    header.pop("__metadata__", None)
    return header


def hub_cache() -> Path:
    """The folder of huggingface_hub's cache, by the variables that it reads, in its order."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    home = Path(os.environ.get("HF_HOME") or base)
    chosen = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or home / "hub"
    return Path(os.path.expandvars(chosen)).expanduser()


def cached_snapshot(repo: str, revision: str | None = None) -> Path | None:
    """The folder of a model in the hub's cache, complete or not; None where nothing of it is there."""
    store = hub_cache() / f"models--{repo.replace('/', '--')}"
    wanted = revision or "main"
    reference = store / "refs" / wanted
    try:
        commit = reference.read_text(encoding="ascii").strip() if reference.is_file() else wanted
    except (OSError, ValueError):
        return None
    snapshot = store / "snapshots" / commit
    return snapshot if commit and snapshot.is_dir() else None


def cached_repos() -> Iterator[tuple[str, Path]]:
    """Every model in the hub's cache as ``(id, snapshot)``: its main branch, else its newest snapshot."""
    for store in entries(hub_cache()):
        if not store.name.startswith("models--"):
            continue
        repo = store.name.removeprefix("models--").replace("--", "/", 1)
        snapshot = cached_snapshot(repo) or _newest(entries(store / "snapshots"))
        if snapshot is not None:
            yield repo, snapshot


def _newest(folders: list[Path]) -> Path | None:
    changed = {}
    for folder in folders:
        with suppress(OSError):
            changed[folder] = folder.stat().st_mtime
    return max(changed, key=lambda folder: changed[folder], default=None)


def _architecture(config: dict[str, Any]) -> str:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def _integer(values: dict[str, Any], *names: str) -> int | None:
    return next((values[name] for name in names if isinstance(values.get(name), int)), None)


def _element_counts(files: list[Path]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for file in files:
        try:
            for tensor in safetensors_header(file).values():
                counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + math.prod(tensor["shape"])
        except (OSError, ValueError, KeyError, TypeError):
            # Missing or damaged: whoever loads the model says so; here it only means that the count is not known.
            return {}
    return counts


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    try:
        return bool(json.loads((folder / "tokenizer_config.json").read_bytes()).get("chat_template"))
    except (OSError, ValueError, AttributeError):
        return False
