"""Finds the damaged file of a model that could not be loaded, where a library's error does not name it."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.models.local import header_length, hub_cache, parse_header, weight_files
from workbench.storage.folders import files_in

_SHOWN = 20


def damaged_file(folder: Path) -> WorkbenchError | None:
    """The error for the first damaged file in a model's folder, with what to do; None if none is.

    Looks at the JSON files, and at the headers of the weights: a file must be as long as its header says.
    """
    for file, problem in _problems(folder):
        if file.is_relative_to(hub_cache()):
            cure = f"Delete {file.resolve()}, and start again: the file is downloaded again."
        else:
            cure = "Copy or download this file again."
        if problem is _BOM:
            cure = "Save it as UTF-8 without one."
        return WorkbenchError(f"{file} {problem}.", cure, kind="model_damaged")
    return None


_BOM = "begins with a byte order mark, which transformers does not read"


def _problems(folder: Path) -> Iterator[tuple[Path, str]]:
    for file, status in files_in(folder):
        if file.suffix == ".json" and (problem := _json_problem(file)):
            yield file, problem
        elif file.suffix == ".model" and status.st_size == 0:
            yield file, "is empty"
    for file in weight_files(folder)[0]:
        if file.is_file() and (problem := _weights_problem(file)):
            yield file, problem


def _json_problem(file: Path) -> str:
    try:
        data = file.read_bytes()
        if data.startswith(codecs.BOM_UTF8):
            return _BOM
        json.loads(data)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError as error:
        return "is empty" if not data.strip() else f"is not valid JSON: {error}"
    return ""


def _weights_problem(file: Path) -> str:
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            if not start:
                return "is empty"
            if start.lstrip()[:1] == b"<":
                return f"is a web page, not weights: it begins with {_shown(start + stream.read(_SHOWN))}"
            length = header_length(start, file.name)
            tensors = parse_header(stream.read(length), file.name)
        needed = 8 + length + max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, IndexError):
        return "is not a safetensors file, or its header is damaged"
    return f"has {size:,} bytes, and its header says {needed:,}" if size != needed else ""


def _shown(start: bytes) -> str:
    return repr(start.decode("utf-8", "replace"))
