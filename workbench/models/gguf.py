"""GGUF files: their header, read without torch, and their conversion to a folder of safetensors.

File format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import functools
import hashlib
import json
import os
import re
import shutil
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from workbench.errors import WorkbenchError
from workbench.models.child import bars_as_progress, cancelled_error, report, run_in_child
from workbench.models.local import ORIGIN_FILE
from workbench.progress import Progress
from workbench.storage.atomic import write_text
from workbench.storage.folders import entries
from workbench.units import size_in

_BLOCK = 1 << 22
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_LONGEST_STRING = 1 << 24

# How text is cut before merging, for vocabularies whose rule transformers does not know and takes for GPT-2's.
# smollm: every digit stands alone (llama.cpp, `LLAMA_VOCAB_PRE_TYPE_SMOLLM`).
_SINGLE_DIGITS = {"smollm"}


@dataclass(frozen=True)
class GgufFacts:
    """The header of a GGUF file. ``metadata`` leaves arrays out."""

    path: Path
    bytes: int
    tensors: int
    metadata: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def architecture(self) -> str:
        """llama.cpp's name: ``llama``, ``qwen2``, …"""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def name(self) -> str:
        return str(self.metadata.get("general.name", self.path.stem))

    @property
    def license(self) -> str:
        return str(self.metadata.get("general.license", ""))


def describe_gguf(path: Path) -> GgufFacts:
    """Read the header of a GGUF file.

    Raises:
        WorkbenchError: the file is missing, is no GGUF file, is cut short, or is of a version that no reader knows.
    """
    try:
        with path.open("rb") as file:
            magic, version, tensors, count = struct.unpack("<4sIQQ", file.read(24))
            if magic != b"GGUF":
                raise ValueError("it does not start with GGUF")
            if version not in (2, 3):
                raise ValueError(f"version {version} is not supported (2 and 3 are)")
            metadata: dict[str, Any] = {}
            for _ in range(count):
                key = _string(file)
                value = _value(file, _number(file, "<I"))
                if value is not None:
                    metadata[key] = value
            return GgufFacts(path, path.stat().st_size, tensors, metadata)
    except FileNotFoundError:
        raise WorkbenchError(
            f"No such file: {path}.", "Check the path, or use a Hugging Face id.", kind="model_not_found"
        ) from None
    except (OSError, ValueError, struct.error) as error:
        raise WorkbenchError(
            f"{path.name} is not a usable GGUF file: {error}.", "Download it again.", kind="model_damaged"
        ) from None


def converted_folder(models: Path, name: str, sha256: str) -> Path:
    """Where the conversion of a GGUF file with this content is kept."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", name.removesuffix(".gguf"))[:64].lstrip(".-") or "model"
    return models / f"{safe}-{sha256[:16]}"


def find_converted(models: Path, path: Path) -> Path | None:
    """The conversion of a GGUF file, known by its path, size and time of change: the file is not read."""
    if not path.is_file():
        return None
    stat = path.stat()
    for folder in entries(models):
        origin = read_origin(folder)
        if (origin.get("path"), origin.get("bytes"), origin.get("mtime_ns")) == (
            str(path.resolve()),
            stat.st_size,
            stat.st_mtime_ns,
        ):
            return folder
    return None


def read_origin(folder: Path) -> dict[str, Any]:
    """What a converted model was made from; empty for a folder that was not converted here."""
    try:
        origin = json.loads((folder / ORIGIN_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return origin if isinstance(origin, dict) else {}


def convert_gguf(
    path: Path,
    models: Path,
    progress: Callable[[Progress], None],
    cancelled: Callable[[], bool],
    *,
    source: str | None = None,
) -> Path:
    """Make a folder of safetensors (bfloat16) and tokenizer from a GGUF file; returns it.

    A file with content that was converted before costs only its checksum. The folder appears whole or not at all.

    Args:
        source: the name the model goes by; its path where None.

    Raises:
        WorkbenchError: the file is damaged, transformers does not know its architecture, the disk is full, or kind
            ``cancelled``.
    """
    facts = describe_gguf(path)
    if known := find_converted(models, path):
        return known
    digest = sha256_of(path, progress, cancelled)
    target = converted_folder(models, path.name, digest)
    stat = path.stat()
    origin = {
        "source": source or str(path.resolve()),
        "sha256": digest,
        "bytes": stat.st_size,
        "license": facts.license,
        "path": str(path.resolve()),
        "mtime_ns": stat.st_mtime_ns,
    }
    if target.is_dir():
        # The same content under another path or time: from now on it is found by this one.
        _write_origin(target, origin)
        return target
    models.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(models)
    partial = models / f".partial-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        work = {"path": str(path.resolve()), "folder": str(partial)}
        run_in_child(f"{__name__}:_convert", work, progress, cancelled, what="the conversion")
        _write_origin(partial, origin)
        try:
            partial.replace(target)
        except OSError:
            # Somebody else finished the same conversion first.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def sha256_of(path: Path, progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> str:
    """The checksum of a file, with progress: 40 GB take about a minute."""
    size = path.stat().st_size or 1
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            if cancelled():
                raise cancelled_error()
            digest.update(block)
            done += len(block)
            progress(Progress(phase=f"checking {path.name}", fraction=done / size, detail=size_in("MB", done, 0)))
    return digest.hexdigest()


def _write_origin(folder: Path, origin: dict[str, Any]) -> None:
    write_text(folder / ORIGIN_FILE, json.dumps(origin, indent=2))


def _remove_leftovers(models: Path) -> None:
    """Folders of conversions whose process died."""
    for folder in entries(models):
        prefix, _, rest = folder.name.partition("-")
        pid = rest.partition("-")[0]
        if prefix == ".partial" and pid.isdigit() and int(pid) != os.getpid() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _convert(path: str, folder: str) -> None:
    """In the child: dequantise, set what a chat needs to stop, save.

    The ids that end a turn come from the header: ``eos_token_id``, and ``eot_token_id`` where it is another one.
    """
    import gguf
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    file = Path(path)
    metadata = describe_gguf(file).metadata
    report("reading the GGUF file", None, file.name)
    # transformers reads the header three times, at seconds each, and makes the table of names anew for every module.
    # This process does nothing else, so both can be kept: 11 s of processor time instead of 26 s for SmolLM2-135M.
    gguf.GGUFReader = functools.cache(gguf.GGUFReader)
    gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)
    with bars_as_progress("converting to safetensors"):
        try:
            model = AutoModelForCausalLM.from_pretrained(
                file.parent,
                gguf_file=file.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.bfloat16,
            )
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        except (ValueError, NotImplementedError, KeyError) as error:
            raise WorkbenchError(
                f"transformers cannot convert {file.name} "
                f"(architecture {metadata.get('general.architecture', 'unknown')}): {error}",
                "Use the model's safetensors from the Hugging Face hub instead.",
                kind="gguf_unsupported",
            ) from error
    report("saving", None, "safetensors and tokenizer")
    if metadata.get("tokenizer.ggml.pre") in _SINGLE_DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    context = getattr(model.config, "max_position_embeddings", None)
    if context:
        tokenizer.model_max_length = context
    ends = [metadata.get(f"tokenizer.ggml.{name}") for name in ("eos_token_id", "eot_token_id")]
    stops = list(dict.fromkeys(end for end in ends if end is not None))
    padding = metadata.get("tokenizer.ggml.padding_token_id", stops[0] if stops else None)
    model.generation_config = GenerationConfig(
        bos_token_id=metadata.get("tokenizer.ggml.bos_token_id"),
        eos_token_id=stops[0] if len(stops) == 1 else stops or None,
        pad_token_id=padding,
    )
    if tokenizer.pad_token is None and padding is not None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding)
    # A quantiser's mark would make the next load look for packed weights.
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        model.config.__dict__.pop(name, None)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _number(file: IO[bytes], shape: str) -> Any:
    return struct.unpack(shape, file.read(struct.calcsize(shape)))[0]


def _string(file: IO[bytes]) -> str:
    length = _number(file, "<Q")
    if length > _LONGEST_STRING:
        raise ValueError("its header is damaged")
    text: bytes = file.read(length)
    if len(text) < length:
        raise ValueError("it is cut short")
    return text.decode("utf-8", "replace")


def _value(file: IO[bytes], kind: int) -> Any:
    """One value of the header; None for an array, which is passed over."""
    if kind in _SCALARS:
        return _number(file, _SCALARS[kind])
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        raise ValueError("its header is damaged")
    inner, count = _number(file, "<I"), _number(file, "<Q")
    if inner in _SCALARS:
        file.seek(struct.calcsize(_SCALARS[inner]) * count, os.SEEK_CUR)
        return None
    for _ in range(count):
        if inner == _STRING:
            file.seek(_number(file, "<Q"), os.SEEK_CUR)
        else:
            _value(file, inner)
    return None
