"""Extents of tensors that depend on the record length otherwise than in proportion.

Layers that scan a sequence in chunks pad it to whole chunks (Mamba-2 in Granite 4, Falcon-H1 and Nemotron-H), and
causal convolutions pad it by their width. Without torch.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

_CHUNK = re.compile(r"(mamba_)?chunk_size")
_KERNEL = re.compile(r"mamba_d_conv|conv_kernel|linear_conv_kernel_dim|conv_L_cache")
_UNUSUAL = re.compile(r"chunk|mamba|linear_|conv_|lightning|block_size|ssm")
_ATTENTION = {"full_attention", "sliding_attention"}


class Extent(NamedTuple):
    """⌈(length + ``more``) / ``chunk``⌉ + ``further``."""

    more: int
    chunk: int
    further: int

    def at(self, length: int) -> int:
        return -(-(length + self.more) // self.chunk) + self.further


def extents_of(config: Mapping[str, object]) -> tuple[Extent, ...]:
    """The extents in a model of this configuration: chunks, chunks with a first state, padded convolutions."""
    found = dict.fromkeys(
        extent
        for name, value in _settings(config)
        if isinstance(value, int)
        for extent in (
            (Extent(0, value, 0), Extent(0, value, 1))
            if _CHUNK.fullmatch(name)
            else (Extent(value - 1, 1, 0),)
            if _KERNEL.fullmatch(name) and value > 1
            else ()
        )
    )
    return tuple(found)


def needs_check(config: Mapping[str, object]) -> bool:
    """Whether layers other than attention may read the sequence, so that sizes are checked at a second length."""
    return any(
        _UNUSUAL.search(name) or (name == "layer_types" and isinstance(value, list) and set(value) - _ATTENTION)
        for name, value in _settings(config)
        if value is not None
    )


def probe_length(extents: Iterable[Extent], dimensions: set[int]) -> int:
    """A prime length at which each extent has a large prime factor of its own, which divides no dimension.

    Raises:
        ValueError: there is none.
    """
    listed = tuple(extents)
    for length in range(1009, 200_000, 2):
        if _largest_factor(length) != length:
            continue
        factors = [_largest_factor(extent.at(length)) for extent in listed] + [length]
        are_apart = min(factors) > 30 and len(set(factors)) == len(factors)
        if are_apart and not any(dimension % factor == 0 for factor in factors for dimension in dimensions):
            return length
    raise ValueError("no length tells the extents of this model apart")


def _settings(config: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    yield from config.items()
    text = config.get("text_config")
    if isinstance(text, dict):
        yield from text.items()


def _largest_factor(number: int) -> int:
    largest, divisor = 1, 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            largest, number = divisor, number // divisor
        divisor += 1
    return max(largest, number)
