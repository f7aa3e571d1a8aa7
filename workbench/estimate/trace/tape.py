"""Every allocation and release of a traced step, in order, in a few hundred bytes."""

import base64
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypedDict

from workbench.estimate.trace.lengths import Extent
from workbench.estimate.trace.monomial import Monomial, values_at

# TRL 1.16 computes the loss in tiles of this many tokens and vocabulary entries (``trl.kernels.chunked_logprob``).
TILE_TOKENS = 4096
TILE_WIDTH = 32768

CARRIED = -1
"""In a tape, the moment at which the loop drops what it kept of the step before."""


class TapeData(TypedDict):
    """A :class:`Tape` as JSON data: each size is [coefficient, powers]; moves and gradients are compressed numbers."""

    sizes: list[list[int]]
    moves: str
    gradients: str
    tile: int


@dataclass(frozen=True)
class Tape:
    """The allocations and releases of a step.

    Attributes:
        sizes: the sizes that occur.
        moves: (number of a block, place of its size), in order; blocks are numbered from 0 as they are allocated. The
            place is −1 where the block is released, and ``len(sizes)`` for the loss tile. After that comes the place
            of a block of no size: there the backward pass makes a handle of cuBLAS, whose workspace stays.
        gradients: the blocks that the optimizer releases at its end.
        tile_bytes: size of an element of the loss tile.
        extents: what else depends on the length, as the powers of the sizes count it.
    """

    sizes: tuple[Monomial, ...]
    moves: tuple[tuple[int, int], ...]
    gradients: tuple[int, ...]
    tile_bytes: int
    extents: tuple[Extent, ...] = ()

    @property
    def handle(self) -> int:
        """The place of a move that makes a handle of cuBLAS."""
        return len(self.sizes) + 1

    def sizes_at(self, batch: int, length: int, rank: int) -> list[int]:
        """Bytes of each size, the loss tile's last."""
        tile = min(batch * length, TILE_TOKENS) * TILE_WIDTH * self.tile_bytes
        values = values_at(batch, length, rank, self.extents)
        return [size.at(values) for size in self.sizes] + [tile]

    def as_json(self) -> TapeData:
        numbers: list[int] = []
        allocated = 0
        for number, place in self.moves:
            if place >= 0:
                numbers.append(2 * place)
                allocated += 1
            else:
                # How many allocations ago: equal layers give equal numbers. 0 for what the loop kept.
                numbers.append(2 * (0 if number == CARRIED else allocated - number) + 1)
        return {
            "sizes": [[size.coefficient, *size.powers] for size in self.sizes],
            "moves": _packed(numbers),
            "gradients": _packed(after - before for before, after in pairwise((0, *self.gradients))),
            "tile": self.tile_bytes,
        }

    @classmethod
    def from_json(cls, data: TapeData, extents: tuple[Extent, ...] = ()) -> "Tape":
        moves = []
        allocated = 0
        for number in _unpacked(data["moves"]):
            if number % 2 == 0:
                moves.append((allocated, number // 2))
                allocated += 1
            else:
                moves.append((allocated - number // 2 if number > 1 else CARRIED, -1))
        gradients = []
        last = 0
        for step in _unpacked(data["gradients"]):
            last += step
            gradients.append(last)
        sizes = tuple(Monomial(c, tuple(powers)) for c, *powers in data["sizes"])
        return cls(sizes, tuple(moves), tuple(gradients), data["tile"], extents)


def _packed(numbers: Iterable[int]) -> str:
    out = bytearray()
    for number in numbers:
        rest = number
        while rest >= 128:
            out.append(rest & 127 | 128)
            rest >>= 7
        out.append(rest)
    return base64.b85encode(zlib.compress(bytes(out), 9)).decode()


def _unpacked(text: str) -> Iterator[int]:
    number = shift = 0
    for byte in zlib.decompress(base64.b85decode(text)):
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield number
            number = shift = 0
