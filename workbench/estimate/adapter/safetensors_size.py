"""Computes the exact size of a safetensors file from the names, types and shapes in it.

Format: eight bytes of header length, a JSON header padded with spaces to a multiple of eight, the data. Tensors are
laid out by type, widest alignment first, then by name (github.com/huggingface/safetensors, ``serialize``).
"""

import json
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

BYTES_OF: Mapping[str, int] = {
    "complex64": 8,
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
"""Bytes per element, by torch's name of the dtype."""

# By dtype: its name in the file, and its place in the order in which safetensors writes dtypes.
_CODES = {"float32": ("F32", 0), "int32": ("I32", 1), "bfloat16": ("BF16", 2), "float16": ("F16", 3)}


class SavedTensors(NamedTuple):
    """Names of tensors in a file that have the same shape and dtype."""

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
        KeyError: adapters are not saved in this dtype.
    """
    groups = tuple(tensors)
    header = len("{}") if not metadata else len(json.dumps({"__metadata__": metadata}, separators=(",", ":")) + ",")
    sizes = []
    for names, shape, dtype in groups:
        code, _ = _CODES[dtype]
        sizes.append(math.prod(shape) * BYTES_OF[dtype])
        dimensions = ",".join(map(str, shape))
        # Adapter keys are ASCII without quotes or backslashes, so a character is a byte.
        header += len(names) * len(f'"":{{"dtype":"{code}","shape":[{dimensions}],"data_offsets":[,]}},')
    name_bytes, order = _laid_out(tuple((group.names, _CODES[group.dtype][1]) for group in groups))
    header += name_bytes
    # Each tensor's entry has the offsets of its start and its end, in decimal digits.
    offset = 0
    digits = 1
    for group in order:
        header += digits
        offset += sizes[group]
        digits = len(str(offset))
        header += digits
    if order:
        header -= len(",")
    return 8 + header + (-header) % 8 + offset


# Cached: while the user changes the rank, the names and so their order stay the same.
@lru_cache(maxsize=64)
def _laid_out(groups: tuple[tuple[tuple[str, ...], int], ...]) -> tuple[int, tuple[int, ...]]:
    """The total length of all names, and for each tensor in the order of the file the index of its group."""
    tensors = sorted((place, name, index) for index, (names, place) in enumerate(groups) for name in names)
    return sum(len(name) for _, name, _ in tensors), tuple(index for _, _, index in tensors)
