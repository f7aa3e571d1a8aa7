"""Caches quantized bases on disk: each is quantized once, and later loads read a quarter of the bytes.

Before a cached base is used, each tensor is compared with the fingerprint of the one that was written, so the base is
bit for bit the one that was quantized. If they differ the cache entry is removed and the base is quantized again. A
model whose class is not part of transformers is not cached: its code would have to be copied, and trusted again.
"""

import hashlib
import json
import os
import shutil
import threading
import weakref
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from workbench.engine.model.model_state import (
    Fingerprint,
    ModelSettings,
    ModelState,
    Tensors,
    dtypes_and_shapes,
    fingerprints_of,
    settings_of,
)
from workbench.engine.model.precision import Precision
from workbench.engine.model.sharded import is_sharded
from workbench.models.local import read_config
from workbench.models.model_class import auto_class
from workbench.models.sources import LocalModel
from workbench.recipe.sections.quantization import QuantizationSection
from workbench.storage.disk_cache import CacheName, DiskCache
from workbench.storage.folders import files_in
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CACHE: CacheName = "quantised"
_FORMAT = 1
# Smaller models are quantized faster than they are read from the cache.
_MIN_BYTES = 50_000_000
# Host memory used at once while a base is copied from a GPU.
_SHARD_BYTES = 500_000_000
_WRITTEN = "written.json"
_CONFIG_FILES = ("config.json", "generation_config.json", "model.safetensors.index.json")


class _Written(TypedDict):
    """What ``written.json`` says of a cached base: its settings, its tensors, and the sizes of its files."""

    settings: ModelSettings
    marks: dict[str, Fingerprint]
    files: dict[str, int]


class QuantizedStore:
    """The cache entry of one base. All processes on a machine read it; only the first one writes it.

    Args:
        what: describes the base in listings of the cache.
    """

    def __init__(
        self, home: Home, local: LocalModel, quantization: QuantizationSection, precision: Precision, what: str
    ) -> None:
        self._cache = DiskCache.of(home, CACHE)
        self._local = local
        self._is_enabled = quantization.method != "none" and not is_sharded()
        self._key = _key(local, quantization, precision) if self._is_enabled else ""
        self._what = what

    def holds(self) -> bool:
        """Whether there is an entry with the base's weights."""
        folder = self._cache.find(self._key) if self._is_enabled else None
        return folder is not None and (folder / _WRITTEN).is_file()

    def load(self, arguments: Mapping[str, object]) -> "PreTrainedModel | None":
        """Load the model from the cache, after :meth:`holds`; None if the entry cannot be used, which is then removed.

        Args:
            arguments: for ``from_pretrained``, without the quantization config, which is stored with the weights.
        """
        import torch

        folder = self._cache.folder / self._key
        try:
            written: _Written = json.loads((folder / _WRITTEN).read_text(encoding="utf-8"))
            if any((folder / name).stat().st_size != size for name, size in written["files"].items()):
                raise ValueError("a file has a different size")
            model = auto_class(read_config(folder)).from_pretrained(folder, **arguments)
            _set_name(model, str(self._local.folder))
            fingerprints, settings = ModelState.of(model).fingerprints(), settings_of(model)
            is_another = (
                dtypes_and_shapes(fingerprints) != dtypes_and_shapes(written["marks"])
                or settings != written["settings"]
            )
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # transformers raises all kinds of errors for a damaged file
            self._drop(f"it cannot be read: {' '.join(str(error).split())[:200] or type(error).__name__}")
            return None
        if is_another:
            self._drop("transformers builds a different model from it")
            # Nothing is damaged, so each new attempt would fail too: an empty entry prevents them.
            self._cache.put(self._key, self._cache.begin(self._key), {"what": f"{self._what}: cannot be cached"})
            return None
        if fingerprints != written["marks"]:
            self._drop("its weights differ from those written")
            return None
        return model

    def _drop(self, reason: str) -> None:
        print(f"The cached quantized base is discarded: {reason}.", flush=True)
        self._cache.remove(self._key)

    def write(self, model: "PreTrainedModel") -> threading.Thread | None:
        """Write a base that was just quantized to the cache, in the background, while it is already in use.

        The tensors are collected before this returns: attaching an adapter, or repacking on a CPU, replaces tensors in
        the model and leaves these unchanged. If the model is unloaded first, tensors not yet written are released too,
        since their memory may be needed.
        """
        if not self._is_enabled or not _is_worth_caching(model) or self._cache.find(self._key) is not None:
            return None
        try:
            state = ModelState.of(model)
            written: _Written = {"settings": settings_of(model), "marks": fingerprints_of(state.buffers), "files": {}}
            quantization = model.config.quantization_config.to_dict()
        except Exception as error:  # an unknown kind of model: it is loaded, only not cached
            _print_reason(error)
            return None
        weakref.finalize(model, state.stored.clear)
        thread = threading.Thread(
            target=self._write_files, args=(state, written, quantization), name="cache the base", daemon=True
        )
        thread.start()
        return thread

    def _write_files(self, state: ModelState, written: _Written, quantization: dict[str, object]) -> None:
        folder = None
        try:
            if reason := self._cache.make_room(self._key, sum(tensor.nbytes for tensor in state.stored.values())):
                raise OSError(reason)
            folder = self._cache.begin(self._key)
            fingerprints = _write_weights(folder, state.stored)
            written["marks"] |= fingerprints | {name: fingerprints[first] for name, first in state.ties.items()}
            written["files"] = {file.name: file.stat().st_size for file in folder.iterdir()}
            self._write_configuration(folder, quantization)
            (folder / _WRITTEN).write_text(json.dumps(written), encoding="utf-8")
            self._cache.put(self._key, folder, {"what": self._what})
        except Exception as error:  # a full disk, an unloaded model, tensors that safetensors cannot store
            state.stored.clear()
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            _print_reason(error)

    def _write_configuration(self, folder: Path, quantization: dict[str, object]) -> None:
        """Write the model's configuration files, with the quantization config added."""
        config = json.loads((self._local.folder / "config.json").read_text(encoding="utf-8"))
        text = json.dumps(config | {"quantization_config": quantization}, indent=1)
        (folder / "config.json").write_text(text, encoding="utf-8")
        generation = self._local.folder / "generation_config.json"
        if generation.is_file():
            shutil.copyfile(generation, folder / generation.name)


def _set_name(model: "PreTrainedModel", name: str) -> None:
    """Set the name of a model and its modules to the original folder, which transformers took from the cache."""
    model.config._name_or_path = name
    for module in model.modules():
        if hasattr(module, "name_or_path"):
            module.name_or_path = name


def _print_reason(error: Exception) -> None:
    reason = "the model was unloaded" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
    print(f"The quantized base is not cached: {reason}.", flush=True)


def _write_weights(folder: Path, stored: Tensors) -> dict[str, Fingerprint]:
    """Write the tensors shard by shard, releasing each; returns their fingerprints.

    Raises:
        KeyError: the model was unloaded in the meantime.
    """
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file

    plan = split_torch_state_dict_into_shards(
        stored, filename_pattern="model{suffix}.safetensors", max_shard_size=_SHARD_BYTES
    )
    fingerprints: dict[str, Fingerprint] = {}
    for file, names in plan.filename_to_tensors.items():
        shard = {name: stored.pop(name).to("cpu").contiguous() for name in names}
        save_file(shard, folder / file, metadata={"format": "pt"})
        fingerprints |= fingerprints_of(shard)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return fingerprints


def _is_worth_caching(model: "PreTrainedModel") -> bool:
    return bool(
        os.environ.get("LOCAL_RANK", "0") == "0"
        and type(model).__module__.startswith("transformers.")
        and not model.hf_quantizer.pre_quantized
        and model.get_memory_footprint() >= _MIN_BYTES
    )


def _key(local: LocalModel, quantization: QuantizationSection, precision: Precision) -> str:
    """A hash of everything the quantized weights depend on: files, settings, device and library versions."""
    import torch

    # The system sets ctime whenever a file is changed or renamed: a copy with the old mtime still differs.
    stats = {
        file.name: (str(file.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        for file, stat in files_in(local.folder)
        if file.suffix == ".safetensors" or file.name in _CONFIG_FILES
    }
    parts = {
        "format": _FORMAT,
        "files": stats,
        "method": quantization.method,
        "double_quant": quantization.double_quant,
        "compute": precision.compute,
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else torch.backends.cpu.get_cpu_capability(),
        "versions": [version(name) for name in ("torch", "transformers", "bitsandbytes")],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
