"""The frozen base in memory, to the byte: what transformers reports, and what really lies there.

``model.get_memory_footprint()`` counts parameters and buffers but not the constants that belong to quantized weights.
Sizes of those, from bitsandbytes 0.50 (``functional.quantize_4bit``, ``quantize_blockwise`` and
``int8_vectorwise_quant``), for a weight of n elements in B = ⌈n / 64⌉ blocks:

- nf4, fp4: ⌈n / 2⌉, plus 4·B for the blocks' largest values and 64 for the table of 16 values;
  with double quantization B + 4·⌈B / 256⌉ + 64 + 1024 (table of 256 values) + 4 (offset) instead.
- int8: n, plus 4 for each output row.
- Formats that only a model's own files have (GPTQ, AWQ, HQQ, …), here with b bits and groups of g weights:
  n·b / 8, plus 2 for the scale and b / 8 for the zero point of each group.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from workbench.estimate.adapter.safetensors_size import BYTES_OF
from workbench.models.skeleton import Module, Skeleton, Tensor
from workbench.recipe.sections.quantization import QuantMethod

StorageMethod = QuantMethod | Literal["packed"]
ALLOCATION = 512
BLOCK = 64
NESTED_BLOCK = 256


@dataclass(frozen=True)
class Storage:
    """How the base is stored: the recipe's quantization, and the type of everything that is not quantized."""

    method: StorageMethod
    double_quant: bool
    dtype: str

    @property
    def is_4bit(self) -> bool:
        return self.method in ("nf4", "fp4")

    @property
    def is_unpacked_whole(self) -> bool:
        """Whether a whole weight is unpacked into the compute type when it is used."""
        return self.is_4bit or self.method == "packed"


@dataclass(frozen=True)
class PackedStorage(Storage):
    """A base that its files store in a format of their own, with ``bits`` a weight and a scale for each group.

    ``group_size`` is None where a row is one group.
    """

    bits: int = 4
    group_size: int | None = None


@dataclass(frozen=True)
class ModuleBytes:
    """Bytes of one module without its children: as stored, and in 16 bits for comparison.

    ``quantised`` and ``constants`` are parts of ``stored``: packed weights, and the numbers that unpack them.
    """

    stored: int
    quantised: int
    constants: int
    in_16_bit: int
    allocated: int


@dataclass(frozen=True)
class Footprint:
    """The frozen base.

    Attributes:
        footprint_bytes: what ``get_memory_footprint()`` returns.
        true_bytes: with the constants of the quantized weights.
        quantised_bytes: packed weights alone.
        constant_bytes: what unpacks them.
        not_quantised: paths (``*`` for an index) of weights that stay wide although the recipe asks for less.
        not_quantised_bytes: their bytes.
        largest_weight: elements of the largest quantized weight, which is unpacked whole when it is used.
        allocated_bytes: ``true_bytes`` with every tensor rounded up as PyTorch's allocator for CUDA rounds.
    """

    footprint_bytes: int
    true_bytes: int
    quantised_bytes: int
    constant_bytes: int
    not_quantised: tuple[str, ...]
    not_quantised_bytes: int
    largest_weight: int
    allocated_bytes: int


def rounded(size: int) -> int:
    """Bytes that PyTorch's allocator for CUDA counts for a tensor of ``size`` bytes."""
    return -(-size // ALLOCATION) * ALLOCATION


def quantised_tensors(size: int, rows: int, storage: Storage) -> tuple[int, ...]:
    """Bytes of a packed weight of ``size`` elements in ``rows`` rows, and of each tensor that unpacks it."""
    if isinstance(storage, PackedStorage):
        groups = -(-size // storage.group_size) if storage.group_size else rows
        return -(-size * storage.bits // 8), 2 * groups, -(-groups * storage.bits // 8)
    if storage.method == "int8":
        return size, 4 * rows
    blocks = -(-size // BLOCK)
    if storage.double_quant:
        return (size + 1) // 2, blocks, 4 * -(-blocks // NESTED_BLOCK), 64, 1024, 4
    return (size + 1) // 2, 4 * blocks, 64


def measure_base(skeleton: Skeleton, storage: Storage) -> Footprint:
    """The frozen base of a model under the given storage."""
    true = quantised = constants = kept = largest = allocated = 0
    wide: list[str] = []
    for path, module, count in folded_modules(skeleton):
        bytes_ = module_bytes(skeleton, path, module, storage)
        true += bytes_.stored * count
        quantised += bytes_.quantised * count
        constants += bytes_.constants * count
        allocated += bytes_.allocated * count
        if is_quantised(module, storage):
            largest = max([largest, *(tensor.size for tensor in module.tensors if tensor.name == "weight")])
        elif stays_wide(module, storage):
            wide.append(path)
            kept += bytes_.stored * count
    return Footprint(
        footprint_bytes=true - constants,
        true_bytes=true,
        quantised_bytes=quantised,
        constant_bytes=constants,
        not_quantised=tuple(wide),
        not_quantised_bytes=kept,
        largest_weight=largest,
        allocated_bytes=allocated,
    )


def folded_modules(skeleton: Skeleton) -> Iterator[tuple[str, Module, int]]:
    """Every folded module once: its path (``*`` for an index), the module, and how many there are."""
    yield from _folded("", skeleton.root, 1)


def _folded(path: str, module: Module, count: int) -> Iterator[tuple[str, Module, int]]:
    yield path, module, count
    for child in module.children:
        part = "*" if child.indices else child.name
        yield from _folded(f"{path}.{part}" if path else part, child, count * child.count)


def is_quantised(module: Module, storage: Storage) -> bool:
    """Whether transformers turns this module into a bitsandbytes one."""
    return storage.method != "none" and bool(module.facts.get("plain")) and bool(module.facts.get("convertible"))


def stays_wide(module: Module, storage: Storage) -> bool:
    """A weight that a reader of "4-bit" takes for quantized and that is not.

    These are linear layers of a class of the model's own (Falcon's), and experts fused into one three-dimensional
    parameter (Mixtral's): transformers 5 converts exactly ``nn.Linear`` and GPT-2's ``Conv1D``.
    """
    if storage.method == "none":
        return False
    if module.kind in ("linear", "conv1d"):
        return bool(module.facts.get("convertible")) and not module.facts.get("plain")
    return any(len(tensor.shape) == 3 and not tensor.is_buffer for tensor in module.tensors) and module.kind == "other"


def module_bytes(skeleton: Skeleton, path: str, module: Module, storage: Storage) -> ModuleBytes:
    """Bytes of one module's own tensors."""
    stored = packed = constants = wide = allocated = 0
    for tensor in module.tensors:
        if tensor.tied_to is not None:
            continue
        parts = tensor_parts(skeleton, path, module, tensor, storage)
        wide += sum(parts) if tensor.is_buffer else 2 * tensor.size
        if is_packed(module, tensor, storage):
            packed += parts[0]
            constants += sum(parts[1:])
        stored += sum(parts)
        allocated += sum(map(rounded, parts))
    return ModuleBytes(stored, packed, constants, wide, allocated)


def is_packed(module: Module, tensor: Tensor, storage: Storage) -> bool:
    """Whether a tensor is stored quantized."""
    return tensor.name == "weight" and is_quantised(module, storage)


def tensor_parts(skeleton: Skeleton, path: str, module: Module, tensor: Tensor, storage: Storage) -> tuple[int, ...]:
    """Bytes of a tensor as it is stored: of a quantized weight first, and of each tensor that unpacks it."""
    if is_packed(module, tensor, storage):
        rows = tensor.shape[1] if module.kind == "conv1d" else tensor.shape[0]
        return quantised_tensors(tensor.size, rows, storage)
    return (tensor.size * BYTES_OF[tensor_dtype(skeleton, path, tensor, storage)],)


def tensor_dtype(skeleton: Skeleton, path: str, tensor: Tensor, storage: Storage) -> str:
    """The type an unquantized tensor is loaded in: the storage's, but for what the architecture keeps in float32."""
    if tensor.dtype != "bfloat16":  # module trees are built in bfloat16, so any other type is fixed by the model
        return tensor.dtype
    facts = skeleton.root.facts
    patterns: list[str] = []
    if storage.dtype in ("float16", "bfloat16"):
        patterns += facts.get("always_float32", ())
    if storage.dtype == "float16":
        patterns += facts.get("float32_in_float16", ())
    if patterns and _any_of(tuple(patterns)).search(f"{path}.{tensor.name}"):
        return "float32"
    return storage.dtype


@cache
def _any_of(globs: tuple[str, ...]) -> re.Pattern[str]:
    """As ``transformers.core_model_loading.build_glob_alternation``: anywhere in the name, ``*`` for anything."""
    return re.compile("|".join(glob.replace("*", ".*") for glob in globs))
