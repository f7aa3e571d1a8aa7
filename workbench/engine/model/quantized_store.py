"""Quantised bases on disk, so that each is quantised once: the next load reads a quarter of the bytes and computes
nothing.

What is read is compared with what was written, tensor by tensor, before it is used: a base from here is bit for bit the
one that was quantised. Anything else is dropped, and the base is quantised anew. A model whose class is not
transformers' own is not kept: its code would have to be copied, and trusted a second time.
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
from typing import Any

from workbench.engine.model.model_state import Mark, ModelState, marks_of, settings_of, shapes
from workbench.engine.model.precision import Precision
from workbench.engine.model.sharded import is_sharded
from workbench.models.sources import LocalModel
from workbench.recipe.schema import QuantizationSection
from workbench.storage.disk_cache import CacheName, DiskCache
from workbench.storage.folders import files_in
from workbench.storage.paths import Home

CACHE: CacheName = "quantised"
_FORMAT = 1
# Smaller ones are quantised sooner than they are looked for.
_LEAST_BYTES = 50_000_000
# What lies in the host's memory at once while a base is copied from a GPU.
_SHARD_BYTES = 500_000_000
_WRITTEN = "written.json"
_DESCRIBED_BY = ("config.json", "generation_config.json", "model.safetensors.index.json")


class QuantisedStore:
    """The cache entry of one quantized base. Of several processes on a machine all read, and the first one writes.

    Args:
        what: the base in words, for whoever lists what is kept.
    """

    def __init__(
        self, home: Home, local: LocalModel, quantization: QuantizationSection, precision: Precision, what: str
    ) -> None:
        self._cache = DiskCache.of(home, CACHE)
        self._local = local
        self._may_keep = quantization.method != "none" and not is_sharded()
        self._key = _key(local, quantization, precision) if self._may_keep else ""
        self._what = what

    def holds(self) -> bool:
        """Whether the base was quantised and kept before."""
        folder = self._cache.find(self._key) if self._may_keep else None
        return folder is not None and (folder / _WRITTEN).is_file()

    def load(self, arguments: Mapping[str, Any]) -> Any:
        """The model; None where what is kept cannot be used, and is dropped.

        Args:
            arguments: of ``from_pretrained``, without the quantisation, which lies with the weights.
        """
        import torch
        from transformers import AutoModelForCausalLM

        folder = self._cache.folder / self._key
        try:
            written = json.loads((folder / _WRITTEN).read_text(encoding="utf-8"))
            if any((folder / name).stat().st_size != size for name, size in written["files"].items()):
                raise ValueError("a file has a different size")
            model = AutoModelForCausalLM.from_pretrained(folder, **arguments)
            _call_it(model, str(self._local.folder))
            marks, settings = ModelState.of(model).marks(), settings_of(model)
            is_another = shapes(marks) != shapes(written["marks"]) or settings != written["settings"]
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # whatever transformers makes of a damaged file
            return self._drop(f"it cannot be read: {' '.join(str(error).split())[:200] or type(error).__name__}")
        if is_another:
            self._drop("transformers builds a different model from it")
            # Nothing is damaged, so it would be the same each time.
            self._cache.put(self._key, self._cache.begin(self._key), {"what": f"{self._what}: cannot be cached"})
            return None
        return model if marks == written["marks"] else self._drop("its weights differ from those written")

    def _drop(self, reason: str) -> None:
        print(f"The cached quantised base is discarded: {reason}.", flush=True)
        self._cache.remove(self._key)

    def keep(self, model: Any) -> threading.Thread | None:
        """Write a base that was just quantised, in the background, while it is already used.

        Its tensors are noted down here and now: an adapter, and what bitsandbytes does to a layer on a processor,
        puts others in their place and leaves these as they are. When the model goes, those not yet written go with it,
        for their memory may be wanted.
        """
        if not self._may_keep or not _is_worth_it(model) or self._cache.find(self._key) is not None:
            return None
        try:
            state = ModelState.of(model)
            written = {"settings": settings_of(model), "marks": marks_of(state.passing)}
            quantisation = model.config.quantization_config.to_dict()
        except Exception as error:  # a model of a kind never seen: it is loaded, which is all that was asked for
            _tell_make_room(error)
            return None
        weakref.finalize(model, state.stored.clear)
        thread = threading.Thread(
            target=self._write, args=(state, written, quantisation), name="cache the base", daemon=True
        )
        thread.start()
        return thread

    def _write(self, state: ModelState, written: dict[str, Any], quantisation: dict[str, Any]) -> None:
        folder = None
        try:
            if reason := self._cache.make_room(self._key, sum(tensor.nbytes for tensor in state.stored.values())):
                raise OSError(reason)
            folder = self._cache.begin(self._key)
            marks = _write_weights(folder, state.stored)
            written["marks"] |= marks | {name: marks[first] for name, first in state.ties.items()}
            written["files"] = {file.name: file.stat().st_size for file in folder.iterdir()}
            self._write_configuration(folder, quantisation)
            (folder / _WRITTEN).write_text(json.dumps(written), encoding="utf-8")
            self._cache.put(self._key, folder, {"what": self._what})
        except Exception as error:  # a full disk, a model that went, tensors that no file can hold
            state.stored.clear()
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            _tell_make_room(error)

    def _write_configuration(self, folder: Path, quantisation: dict[str, Any]) -> None:
        """The model's own files, and how its weights are quantised."""
        config = json.loads((self._local.folder / "config.json").read_text(encoding="utf-8"))
        text = json.dumps(config | {"quantization_config": quantisation}, indent=1)
        (folder / "config.json").write_text(text, encoding="utf-8")
        own = self._local.folder / "generation_config.json"
        if own.is_file():
            shutil.copyfile(own, folder / own.name)


def _call_it(model: Any, name: str) -> None:
    """Name a model and its parts after the folder that the weights are from in truth."""
    model.config._name_or_path = name
    for module in model.modules():
        if hasattr(module, "name_or_path"):
            module.name_or_path = name


def _tell_make_room(error: Exception) -> None:
    reason = "the model was unloaded" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
    print(f"The quantised base is not cached: {reason}.", flush=True)


def _write_weights(folder: Path, stored: dict[str, Any]) -> dict[str, Mark]:
    """Write and let go of one tensor after the other; returns their marks.

    Raises:
        KeyError: the model was unloaded meanwhile.
    """
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file

    plan = split_torch_state_dict_into_shards(
        stored, filename_pattern="model{suffix}.safetensors", max_shard_size=_SHARD_BYTES
    )
    marks: dict[str, Mark] = {}
    for file, names in plan.filename_to_tensors.items():
        shard = {name: stored.pop(name).to("cpu").contiguous() for name in names}
        save_file(shard, folder / file, metadata={"format": "pt"})
        marks |= marks_of(shard)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return marks


def _is_worth_it(model: Any) -> bool:
    return (
        os.environ.get("LOCAL_RANK", "0") == "0"
        and type(model).__module__.startswith("transformers.")
        and not model.hf_quantizer.pre_quantized
        and model.get_memory_footprint() >= _LEAST_BYTES
    )


def _key(local: LocalModel, quantization: QuantizationSection, precision: Precision) -> str:
    """Names all that the quantised weights depend on: the files, the settings, the device, and the libraries."""
    import torch

    # Set by the system whenever a file's content or name is: a copy that keeps its age does not pass for the old one.
    stats = {
        file.name: (str(file.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        for file, found in files_in(local.folder)
        if file.suffix == ".safetensors" or file.name in _DESCRIBED_BY
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
