"""What loading allocates on a device, tensor by tensor, as transformers 5.23 and bitsandbytes 0.50 do it.

Tensors are loaded in the natural order of their names. A weight to quantize is on the device in 16 bits first, one at a
time (``convert_and_load_state_dict_in_model`` is sequential when it quantizes). Before the first one transformers
allocates one block for all and frees it (``caching_allocator_warmup``). K-bit preparation then replaces each 16-bit
parameter by a float32 one.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from workbench.estimate.adapter.safetensors_size import BYTES_OF
from workbench.estimate.footprint import Storage, is_packed, quantised_tensors, rounded, tensor_parts
from workbench.models.skeleton import Module, Skeleton, Tensor

Event = tuple[object, int]
"""A name with its bytes, which allocates them, or with 0, which releases them."""


_WARM_UP = "warm-up"


def loading_events(skeleton: Skeleton, loaded: Storage, storage: Storage) -> Iterator[Event]:
    """The allocations and releases of loading a base, in order.

    Args:
        loaded: the base as transformers loads it.
        storage: the base while it trains: in a wider type after k-bit preparation.
    """
    listed = sorted(_tensors("", skeleton.root), key=lambda found: _natural(found[0]))
    yield _WARM_UP, sum(_warm_up_bytes(skeleton, *found, loaded) for found in listed)
    yield _WARM_UP, 0
    for path, module, tensor in listed:
        yield from _loaded(skeleton, path, module, tensor, loaded)
    if storage.dtype == loaded.dtype:
        return
    for path, module, tensor in listed:
        narrow = _plain_bytes(skeleton, path, module, tensor, loaded)
        wide = _plain_bytes(skeleton, path, module, tensor, storage)
        if not tensor.is_buffer and wide > narrow:
            yield (path, "wide"), wide
            yield path, 0


@lru_cache(maxsize=256)
def loading_peak(skeleton: Skeleton, loaded: Storage, storage: Storage) -> int:
    """Most bytes that are allocated at once while a base is loaded: a weight in 16 bits beside the quantized ones.

    The block of the warm-up does not count: transformers makes it smaller where memory is short.
    """
    sizes: dict[object, int] = {}
    now = highest = 0
    for name, size in loading_events(skeleton, loaded, storage):
        if name == _WARM_UP:
            continue
        if size:
            sizes[name] = rounded(size)
            now += sizes[name]
            highest = max(highest, now)
        else:
            now -= sizes.pop(name)
    return highest


def moving_events(skeleton: Skeleton, storage: Storage) -> Iterator[Event]:
    """The allocations of ``model.to(device)``: module by module, without a warm-up."""
    for path, module, tensor in _tensors("", skeleton.root):
        yield path, _plain_bytes(skeleton, path, module, tensor, storage)


def _loaded(skeleton: Skeleton, path: str, module: Module, tensor: Tensor, loaded: Storage) -> Iterator[Event]:
    if not is_packed(module, tensor, loaded) or loaded.method == "packed":
        yield path, _plain_bytes(skeleton, path, module, tensor, loaded)
        return
    packed, *constants = tensor_parts(skeleton, path, module, tensor, loaded)
    yield (path, "16-bit"), tensor.size * BYTES_OF[loaded.dtype]
    yield path, packed
    if loaded.double_quant:
        # The blocks' largest values in float32, and the same without their mean, before they are quantized themselves.
        largest = 4 * constants[0]
        yield (path, "largest"), largest
        yield (path, "offset"), constants[-1]
        yield (path, "centered"), largest
        for place, size in enumerate(constants[:-1]):
            yield (path, place), size
        yield (path, "centered"), 0
        yield (path, "largest"), 0
    else:
        for place, size in enumerate(constants):
            yield (path, place), size
    yield (path, "16-bit"), 0


def _plain_bytes(skeleton: Skeleton, path: str, module: Module, tensor: Tensor, storage: Storage) -> int:
    folded = re.sub(r"\.\d+(?=\.|$)", ".*", path)
    return sum(tensor_parts(skeleton, folded.rpartition(".")[0], module, tensor, storage))


def _warm_up_bytes(skeleton: Skeleton, path: str, module: Module, tensor: Tensor, loaded: Storage) -> int:
    if is_packed(module, tensor, loaded):
        return quantised_tensors(tensor.size, 1, replace(loaded, double_quant=False))[0]
    return _plain_bytes(skeleton, path, module, tensor, loaded)


def _tensors(path: str, module: Module) -> Iterator[tuple[str, Module, Tensor]]:
    """Every tensor that is stored, with its full name."""
    for tensor in module.tensors:
        if tensor.tied_to is None:
            yield f"{path}.{tensor.name}" if path else tensor.name, module, tensor
    for child in module.children:
        for part in map(str, child.indices) if child.indices else (child.name,):
            yield from _tensors(f"{path}.{part}" if path else part, child)


def _natural(name: str) -> list[tuple[int, int, str, int]]:
    """The order of ``dot_natural_key`` in transformers' ``core_model_loading``: numbers by value, before words."""
    key = []
    for part in name.split("."):
        word = part.rstrip("0123456789")
        digits = int(part[len(word) :] or 0)
        key.append((0, digits, "", 0) if not word else (1, 0, word, digits))
    return key
