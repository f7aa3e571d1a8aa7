"""Describes models on disk from their own files, and finds models in the hub cache. Needs no torch and no hub library.

The hub cache has huggingface_hub's layout: ``models--<owner>--<name>/refs/<branch>`` contains a commit hash, and
``snapshots/<commit>/`` the files of that commit.
"""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypedDict

from workbench.errors import WorkbenchError
from workbench.storage.folders import entries, files_in
from workbench.storage.lfs import is_lfs_pointer, refuse_lfs_pointer

ORIGIN_FILE = "origin.json"
"""In the folder of a converted model: what it was made from, see :class:`workbench.models.gguf.ConversionOrigin`."""

WEIGHTS_INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"

# A header takes a few hundred bytes per tensor. A larger one is damaged, or meant to exhaust the reader's memory.
_MAX_HEADER_BYTES = 100_000_000

# Not the arguments of a trainer or the state of an optimizer, which are pickles too.
_PICKLED_WEIGHTS = re.compile(r"(pytorch_)?model.*\.(bin|pt|pth)|consolidated.*\.pth")

Missing = Literal["", "config", "weights", "shards", "names", "only_pickle", "tokenizer", "lfs", "adapter"]
"""What a model folder lacks for training: config.json, all weights, some shards, names by which transformers finds the
weights, weights other than pickles, the tokenizer, or the files that Git LFS pointers stand for; empty if it is
complete. ``adapter``: it has one too, which transformers would load with the model."""

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tekken.json",
)


class TensorHeader(TypedDict):
    """One tensor in the header of a safetensors file. ``dtype`` is safetensors' name, such as ``BF16``."""

    dtype: str
    shape: list[int]
    data_offsets: list[int]


@dataclass(frozen=True)
class FolderFacts:
    """What is known about a model folder from its files.

    Attributes:
        architecture: the class that transformers loads, such as ``LlamaForCausalLM``.
        weight_bytes: size of the safetensors files.
        parameters: elements in them; None if weights are missing, or packed by quantization.
        dtypes: elements by safetensors' dtype name, such as ``BF16``.
        config: the content of ``config.json``.
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
    missing: Missing = ""
    config: dict[str, object] = field(default_factory=dict, hash=False)


def describe_folder(folder: Path) -> FolderFacts:
    """Read what a model folder's files say about it. Takes a few milliseconds for a model of any size.

    Raises:
        WorkbenchError: ``config.json`` exists but cannot be read.
    """
    config = read_config(folder)
    text_config = config.get("text_config")
    sizes = {**config, **(text_config if isinstance(text_config, dict) else {})}

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
        missing=what_is_missing(folder),
        config=config,
    )


def what_is_missing(folder: Path) -> Missing:
    """What a model folder lacks for training, judged by its file names and Git LFS pointers; empty if complete."""
    if not (folder / "config.json").is_file():
        return "config"
    if (folder / ADAPTER_CONFIG).is_file():
        return "adapter"
    weights, missing = weight_files(folder)
    if missing:
        return missing
    if lfs_pointer_in(folder, weights):
        return "lfs"
    return "" if has_tokenizer(folder) else "tokenizer"


def lfs_pointer_in(folder: Path, weights: Iterable[Path]) -> Path | None:
    """The first of a model's files that is only a Git LFS pointer; None if there is none."""
    files = (*weights, *(folder / name for name in ("config.json", *_TOKENIZER_FILES)))
    return next((file for file in files if is_lfs_pointer(file)), None)


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder contains a tokenizer, judged by file names alone."""
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def read_config(folder: Path) -> dict[str, object]:
    """Read the ``config.json`` of a folder; an empty dict if there is none.

    Raises:
        WorkbenchError: it cannot be read, is not a JSON object, or is a Git LFS pointer.
    """
    file = folder / "config.json"
    if not file.is_file():
        return {}
    refuse_lfs_pointer(file)
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


def weight_files(folder: Path) -> tuple[list[Path], Missing]:
    """The safetensors files with the weights, and what is missing of them.

    As transformers looks for them: ``model.safetensors``; else the files that an index lists, existing or not; else the
    one that ``config.json`` names. Where there is none of these, every safetensors file directly in the folder.
    """
    single, index = folder / "model.safetensors", folder / WEIGHTS_INDEX
    if single.is_file():
        return [single], ""
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
            files = [folder / Path(str(name)).name for name in names]
        except (OSError, ValueError, KeyError, AttributeError):
            return [], "shards"
        return files, "" if files and all(file.is_file() for file in files) else "shards"
    if named := _named_in_config(folder):
        return [named], "" if named.is_file() else "shards"
    files = [file for file, _ in files_in(folder)]
    if others := [file for file in files if file.suffix == ".safetensors"]:
        return others, "names"
    return [], "only_pickle" if any(_PICKLED_WEIGHTS.fullmatch(file.name) for file in files) else "weights"


def _named_in_config(folder: Path) -> Path | None:
    """The weight file that the configuration names, for a repository that has its weights under another name."""
    try:
        name = read_config(folder).get("transformers_weights")
    except WorkbenchError:
        return None
    return folder / name if isinstance(name, str) and name.endswith(".safetensors") else None


def safetensors_header(file: Path) -> dict[str, TensorHeader]:
    """Read the header of a safetensors file: its tensors by name.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a safetensors file.
    """
    with file.open("rb") as stream:
        return parse_header(stream.read(header_length(stream.read(8), file.name)), file.name)


def header_length(start: bytes, name: str) -> int:
    """Bytes of the header of a safetensors file, which follows the eight that say so.

    Args:
        start: the beginning of the file called ``name``.

    Raises:
        ValueError: it is not a safetensors file.
    """
    length = int.from_bytes(start[:8], "little")
    if not 0 < length <= _MAX_HEADER_BYTES:
        raise ValueError(f"{name} is not a safetensors file, or is damaged")
    return length


def parse_header(header: bytes, name: str) -> dict[str, TensorHeader]:
    """The tensors that the header of a safetensors file lists, by name.

    Raises:
        ValueError: it is not the header of a safetensors file.
    """
    tensors = json.loads(header)
    if not isinstance(tensors, dict):
        raise ValueError(f"{name} is not a safetensors file, or is damaged")
    tensors.pop("__metadata__", None)
    return tensors


def count_elements(header: dict[str, TensorHeader]) -> dict[str, int]:
    """Elements by safetensors' dtype name."""
    counts: dict[str, int] = {}
    for tensor in header.values():
        counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + math.prod(tensor["shape"])
    return counts


def hub_cache() -> Path:
    """The folder of the hub cache, from the environment variables that huggingface_hub reads, in its order."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    home = Path(os.environ.get("HF_HOME") or base)
    chosen = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or home / "hub"
    return Path(os.path.expandvars(chosen)).expanduser()


def cached_snapshot(repo: str, revision: str | None = None) -> Path | None:
    """The folder of a model in the hub cache, complete or not; None if it is not there. Default revision: main."""
    store = hub_cache() / f"models--{repo.replace('/', '--')}"
    revision = revision or "main"
    reference = store / "refs" / revision
    try:
        commit = reference.read_text(encoding="ascii").strip() if reference.is_file() else revision
    except (OSError, ValueError):
        return None
    snapshot = store / "snapshots" / commit
    return snapshot if commit and snapshot.is_dir() else None


def cached_repos() -> Iterator[tuple[str, Path]]:
    """Yield ``(id, folder)`` of every model in the hub cache: of its main branch, or else its newest snapshot."""
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


def _architecture(config: dict[str, object]) -> str:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def _integer(values: dict[str, object], *names: str) -> int | None:
    """The first value under one of these names that is an integer."""
    return next((value for name in names if isinstance(value := values.get(name), int)), None)


def _element_counts(files: list[Path]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for file in files:
        try:
            counts.update(count_elements(safetensors_header(file)))
        except (OSError, ValueError, KeyError, TypeError):
            # A missing or damaged file is reported when the model is loaded; here the counts are just unknown.
            return {}

    return dict(counts)


def _has_chat_template(folder: Path) -> bool:
    if any(
        (folder / name).exists() for name in ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
    ):
        return True
    try:
        return bool(json.loads((folder / "tokenizer_config.json").read_bytes()).get("chat_template"))
    except (OSError, ValueError, AttributeError):
        return False
