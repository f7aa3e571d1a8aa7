"""Quantizes a 16-bit GGUF file to one of llama.cpp's mixtures, with ``llama-quantize`` or with llama.cpp's library.

The library's own quantization of a whole file is not exported by the Python package, its routine for rows of numbers
(``ggml_quantize_chunk``) is. This module is also the program that calls it: a native crash ends only that process.
"""

import ctypes
import json
import math
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from workbench.errors import WorkbenchError
from workbench.export.gguf.guard import run_guarded
from workbench.export.gguf.mixture import Mixture, Tensor, kinds_in_mixture
from workbench.export.gguf.tools import LlamaCppTools
from workbench.models.child import report

if TYPE_CHECKING:
    import gguf

# Rows that one thread quantizes at a time.
_ROWS = 256
# `llama-quantize` writes a line "[  12/ 300] blk.0…" for each tensor; this program writes the same.
_PROGRESS = re.compile(r"\[\s*(\d+)/\s*(\d+)\]\s*(\S*)")


def quantize(tools: LlamaCppTools, source: Path, target: Path, mixture: Mixture) -> str:
    """Quantize ``source`` into ``target``; returns the name of the program that did it.

    Raises:
        WorkbenchError: neither program is there, or it failed.
    """

    def report_line(line: str) -> None:
        if match := _PROGRESS.search(line):
            number, count, tensor = match.groups()
            report(f"quantizing to {mixture.upper()}", int(number) / max(1, int(count)), tensor)

    report(f"quantizing to {mixture.upper()}", None, source.name)
    if tools.quantizer is not None:
        run_guarded([str(tools.quantizer), str(source), str(target), mixture.upper()], "llama-quantize", report_line)
        return "llama-quantize"
    if tools.library is None:
        raise WorkbenchError(
            "There is no llama.cpp to quantize with.",
            "Put llama-quantize on PATH, or let the export download it (--download).",
            kind="no_llama_cpp",
        )
    library = next((tools.library / "xllamacpp").glob("xllamacpp*.so"))
    request = {"library": str(library), "source": str(source), "target": str(target), "mixture": mixture}
    command = [sys.executable, "-P", "-m", "workbench.export.gguf.quantize", json.dumps(request)]
    root = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    run_guarded(command, "llama.cpp's library", report_line, {"PYTHONPATH": path})
    return "llama.cpp's library"


def _main() -> None:
    """Quantize a file with llama.cpp's library; its only argument is the request as JSON."""
    import gguf

    request = json.loads(sys.argv[1])
    source = gguf.GGUFReader(request["source"])
    fields = {name: field for name, field in source.fields.items() if not name.startswith("GGUF.")}
    tensors = [Tensor(tensor.name, tensor.tensor_type.name, _shape(tensor)) for tensor in source.tensors]
    plain = {name: field.contents() for name, field in fields.items() if len(field.types) == 1}
    kinds = kinds_in_mixture(tensors, request["mixture"], plain)
    writer = gguf.GGUFWriter(request["target"], str(plain["general.architecture"]))
    for name, field in fields.items():
        if name not in ("general.architecture", "general.file_type"):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{request['mixture'].upper()}"])
    for tensor in tensors:
        kind = gguf.GGMLQuantizationType[kinds[tensor.name]]
        size = math.prod(gguf.quant_shape_to_byte_shape(tensor.shape, kind))
        placeholder = np.float16 if kind.name == "F16" else np.float32
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(placeholder), size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    library = ctypes.CDLL(request["library"])
    for number, tensor in enumerate(source.tensors, 1):
        sys.stdout.write(f"[{number}/{len(tensors)}] {tensor.name}\n")
        sys.stdout.flush()
        writer.write_tensor_data(_converted(library, tensor, kinds[tensor.name]))
    writer.close()


def _shape(tensor: "gguf.ReaderTensor") -> tuple[int, ...]:
    """A tensor's size with the length of a row last."""
    return tuple(int(length) for length in reversed(tensor.shape))


def _converted(library: ctypes.CDLL, tensor: "gguf.ReaderTensor", kind: str) -> npt.NDArray[np.generic]:
    """The data of a tensor, converted to another type."""
    import gguf

    if tensor.tensor_type.name == kind:
        stored: npt.NDArray[np.generic] = tensor.data
        return stored
    values = np.ascontiguousarray(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
    if kind == "F16":
        return values.astype(np.float16)
    number = gguf.GGMLQuantizationType[kind]
    rows = values.reshape(-1, values.shape[-1])
    quantized = np.empty((len(rows), gguf.quant_shape_to_byte_shape(rows.shape, number)[-1]), np.uint8)
    quantize_rows = library.ggml_quantize_chunk
    quantize_rows.restype = ctypes.c_size_t
    library.ggml_quantize_init(ctypes.c_int(number.value))

    def quantize_part(start: int) -> None:
        part, into = rows[start : start + _ROWS], quantized[start : start + _ROWS]
        quantize_rows(
            ctypes.c_int(number.value),
            part.ctypes.data_as(ctypes.c_void_p),
            into.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int64(0),
            ctypes.c_int64(len(part)),
            ctypes.c_int64(rows.shape[1]),
            None,
        )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(quantize_part, range(0, len(rows), _ROWS)))
    return quantized


if __name__ == "__main__":
    _main()
