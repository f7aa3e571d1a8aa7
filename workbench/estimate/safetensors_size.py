"""The exact size of a safetensors file from the names, types and shapes in it.

Format: eight bytes of header length, a JSON header padded with spaces to a multiple of eight, the data. Tensors are
laid out by type, widest alignment first, then by name (github.com/huggingface/safetensors, ``serialize``).
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

BYTES_OF: Mapping[str, int] = {
    "float64": 8,
    "int64": 8,
    "float32": 4,
    "int32": 4,
    "bfloat16": 2,
    "float16": 2,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
"""Bytes an element, by torch's name of the type."""

# Name in the file, and place in safetensors' order of types (its enum, counted from the end).
_CODES = {"float32": ("F32", 0), "bfloat16": ("BF16", 1), "float16": ("F16", 2)}


class SavedTensors(NamedTuple):
    """Tensors of one shape and type in a file, under their names."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str

    @property
    def parameters(self) -> int:
        return len(self.names) * math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.parameters * BYTES_OF[self.dtype]


def safetensors_bytes(tensors: Iterable[SavedTensors], metadata: Mapping[str, str] | None = None) -> int:
    """Bytes of the file that ``safetensors.torch.save_file`` writes.

    Raises:
        KeyError: a type that adapters are not saved in.
    """
    laid_out: list[tuple[int, str, int]] = []
    header = len("{}") if not metadata else len(json.dumps({"__metadata__": metadata}, separators=(",", ":")) + ",")
    for names, shape, dtype in tensors:
        code, place = _CODES[dtype]
        size = math.prod(shape) * BYTES_OF[dtype]
        dimensions = ",".join(map(str, shape))
        # Adapter keys are ASCII without quotes or backslashes, so a character is a byte.
        header += len(names) * len(f'"":{{"dtype":"{code}","shape":[{dimensions}],"data_offsets":[,]}},')
        header += sum(map(len, names))
        laid_out += [(place, name, size) for name in names]
    laid_out.sort()
    offset = 0
    digits = 1
    for _, _, size in laid_out:
        header += digits
        offset += size
        digits = len(str(offset))
        header += digits
    if laid_out:
        header -= len(",")
    return 8 + header + (-header) % 8 + offset
