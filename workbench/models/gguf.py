"""Reads the header of GGUF files (without torch) and converts them to model folders with safetensors.

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
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO

import psutil

from workbench.errors import WorkbenchError
from workbench.models.child import bars_as_progress, cancelled_error, report, run_in_child
from workbench.models.local import ORIGIN_FILE, what_is_missing
from workbench.progress import Cancelled, Progress, Report
from workbench.storage.atomic import put_folder, write_text
from workbench.storage.folders import entries
from workbench.units import size_in

_HASH_BLOCK = 1 << 22
# struct's codes of GGUF's scalar types, by type number.
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MAX_STRING_BYTES = 1 << 24

# Pre-tokenizers that split every digit off (llama.cpp, `LLAMA_VOCAB_PRE_TYPE_SMOLLM`). transformers does not know them
# and uses that of GPT-2 instead.
_SPLIT_DIGITS = {"smollm"}

GgufValue = bool | int | float | str


@dataclass(frozen=True)
class ConversionOrigin:
    """What a converted model was made from: the content of :data:`~workbench.models.local.ORIGIN_FILE`.

    ``source`` is the name the model goes by. ``path``, ``bytes`` and ``mtime_ns`` identify the GGUF file without
    reading it; ``sha256`` identifies its content.
    """

    source: str = ""
    sha256: str = ""
    bytes: int = 0
    license: str = ""
    path: str = ""
    mtime_ns: int = 0


@dataclass(frozen=True)
class GgufFacts:
    """The header of a GGUF file. ``metadata`` has no array values."""

    path: Path
    bytes: int
    tensors: int
    metadata: dict[str, GgufValue] = field(default_factory=dict, hash=False)

    @property
    def architecture(self) -> str:
        """The architecture by its llama.cpp name: ``llama``, ``qwen2``, …"""
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
        WorkbenchError: the file is missing, not a GGUF file, truncated, or of an unsupported version.
    """
    try:
        with path.open("rb") as file:
            magic, version, tensors, count = struct.unpack("<4sIQQ", file.read(24))
            if magic != b"GGUF":
                raise ValueError("it does not start with GGUF")
            if version not in (2, 3):
                raise ValueError(f"version {version} is not supported (2 and 3 are)")
            metadata: dict[str, GgufValue] = {}
            for _ in range(count):
                key = _string(file)
                value = _value(file, _integer(file, "<I"))
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
    """The folder for the converted form of a GGUF file with this content."""
    safe_name = re.sub(r"[^A-Za-z0-9._-]", "-", name.removesuffix(".gguf"))[:64].lstrip(".-") or "model"
    return models / f"{safe_name}-{sha256[:16]}"


def find_converted(models: Path, path: Path) -> Path | None:
    """The complete converted form of a GGUF file, found by the file's path, size and mtime; None if there is none."""
    if not path.is_file():
        return None
    stat = path.stat()
    identity = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    for folder in entries(models):
        origin = read_origin(folder)
        is_same_file = origin is not None and (origin.path, origin.bytes, origin.mtime_ns) == identity
        if is_same_file and not what_is_missing(folder):
            return folder
    return None


def read_origin(folder: Path) -> ConversionOrigin | None:
    """What a converted model was made from; None for a folder that the workbench did not convert."""
    try:
        data = json.loads((folder / ORIGIN_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(data, dict):
        return None
    names = {field.name for field in fields(ConversionOrigin)}
    return ConversionOrigin(**{name: value for name, value in data.items() if name in names})


def convert_gguf(
    path: Path,
    models: Path,
    progress: Report,
    cancelled: Cancelled,
    *,
    source: str | None = None,
) -> Path:
    """Convert a GGUF file to a folder below ``models`` with bfloat16 safetensors and a tokenizer; returns the folder.

    If the same content was converted before, only its checksum is computed. The folder is complete or absent.

    Args:
        source: the name the model goes by; None for its path.

    Raises:
        WorkbenchError: the file is damaged, transformers does not know its architecture, the disk is full, or kind
            ``cancelled``.
    """
    facts = describe_gguf(path)
    if converted := find_converted(models, path):
        return converted
    digest = sha256_of(path, progress, cancelled)
    target = converted_folder(models, path.name, digest)
    stat = path.stat()
    origin = ConversionOrigin(
        source=source or str(path.resolve()),
        sha256=digest,
        bytes=stat.st_size,
        license=facts.license,
        path=str(path.resolve()),
        mtime_ns=stat.st_mtime_ns,
    )
    if not what_is_missing(target):
        # The same content at another path or with another mtime. From now on it is found by this one.
        _write_origin(target, origin)
        return target
    models.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(models)
    partial = models / f".partial-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        arguments = {"path": str(path.resolve()), "folder": str(partial)}
        run_in_child(f"{__name__}:_convert", arguments, progress, cancelled, result=type(None), what="the conversion")
        _write_origin(partial, origin)
        _put(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _put(partial: Path, target: Path) -> None:
    """Rename a finished conversion to its place, unless another process has just finished the same one."""
    if not what_is_missing(target):
        return
    try:
        put_folder(partial, target, partial.with_name(f"{partial.name}-before"))
    except OSError:
        if what_is_missing(target):
            raise


def sha256_of(path: Path, progress: Report, cancelled: Cancelled) -> str:
    """Compute the SHA-256 of a file, reporting progress: 40 GB take about a minute."""
    size = path.stat().st_size or 1
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            if cancelled():
                raise cancelled_error()
            digest.update(block)
            done += len(block)
            progress(Progress(phase=f"checking {path.name}", fraction=done / size, detail=size_in("MB", done, 0)))
    return digest.hexdigest()


def _write_origin(folder: Path, origin: ConversionOrigin) -> None:
    write_text(folder / ORIGIN_FILE, json.dumps(asdict(origin), indent=2))


def _remove_leftovers(models: Path) -> None:
    """Delete the partial folders of conversions whose process has died."""
    for folder in entries(models):
        prefix, _, rest = folder.name.partition("-")
        pid = rest.partition("-")[0]
        if prefix == ".partial" and pid.isdigit() and int(pid) != os.getpid() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _convert(path: str, folder: str) -> None:
    """In the child: load and dequantize the GGUF file, set its stop tokens for chat, and save it as safetensors.

    The stop tokens come from the header: ``eos_token_id``, and ``eot_token_id`` if it is a different one.
    """
    import gguf
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    file = Path(path)
    metadata = describe_gguf(file).metadata
    report("reading the GGUF file", None, file.name)
    # transformers reads the header three times, seconds each, and rebuilds the table of names for every module. Caching
    # both is safe, as this process converts only this file: 11 s of CPU time instead of 26 s for SmolLM2-135M.
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
    if metadata.get("tokenizer.ggml.pre") in _SPLIT_DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    context = getattr(model.config, "max_position_embeddings", None)
    if context:
        tokenizer.model_max_length = context
    ids = [metadata.get(f"tokenizer.ggml.{name}") for name in ("eos_token_id", "eot_token_id")]
    stops = list(dict.fromkeys(token for token in ids if token is not None))
    padding = metadata.get("tokenizer.ggml.padding_token_id", stops[0] if stops else None)
    model.generation_config = GenerationConfig(
        bos_token_id=metadata.get("tokenizer.ggml.bos_token_id"),
        eos_token_id=stops[0] if len(stops) == 1 else stops or None,
        pad_token_id=padding,
    )
    if tokenizer.pad_token is None and padding is not None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding)
    # With a quantization config, the next load would look for packed weights.
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        model.config.__dict__.pop(name, None)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _integer(file: IO[bytes], code: str) -> int:
    return int(_scalar(file, code))


def _scalar(file: IO[bytes], code: str) -> bool | int | float:
    value: bool | int | float = struct.unpack(code, file.read(struct.calcsize(code)))[0]
    return value


def _string(file: IO[bytes]) -> str:
    length = _integer(file, "<Q")
    if length > _MAX_STRING_BYTES:
        raise ValueError("its header is damaged")
    text: bytes = file.read(length)
    if len(text) < length:
        raise ValueError("it is cut short")
    return text.decode("utf-8", "replace")


def _value(file: IO[bytes], kind: int) -> GgufValue | None:
    """Read one value of the header; None for an array, which is skipped."""
    if kind in _SCALARS:
        return _scalar(file, _SCALARS[kind])
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        raise ValueError("its header is damaged")
    inner, count = _integer(file, "<I"), _integer(file, "<Q")
    if inner in _SCALARS:
        file.seek(struct.calcsize(_SCALARS[inner]) * count, os.SEEK_CUR)
        return None
    for _ in range(count):
        if inner == _STRING:
            file.seek(_integer(file, "<Q"), os.SEEK_CUR)

        else:
            _value(file, inner)
    return None
