"""Simulates PyTorch's caching allocator for CUDA: how much memory it reserves for a sequence of allocations.

From ``c10/cuda/CUDACachingAllocator.cpp``, default settings: sizes are rounded up to 512 bytes; blocks up to 1 MiB come
from 2 MiB segments, blocks under 10 MiB from 20 MiB segments, larger ones from segments of their own, rounded up to
2 MiB; the best-fitting free block is taken and split where enough is left over; freed neighbors merge; segments are
kept.
"""

import bisect
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

MIB = 2**20
ROUND = 512
_SMALL, _SMALL_SEGMENT = MIB, 2 * MIB
_MEDIUM, _MEDIUM_SEGMENT = 10 * MIB, 20 * MIB
_LARGE_ROUND = 2 * MIB


def rounded(size: int) -> int:
    """Bytes that ``memory_allocated`` counts for a tensor of ``size`` bytes."""
    return max(ROUND, -(-size // ROUND) * ROUND)


@dataclass(eq=False, slots=True)
class _Block:
    size: int
    place: int
    is_small: bool
    is_free: bool = False
    before: "_Block | None" = None
    after: "_Block | None" = None


@dataclass
class CachingAllocator:
    """The simulated allocator. All attributes are in bytes; ``peak_…`` are the highest values so far."""

    allocated: int = 0
    reserved: int = 0
    peak_allocated: int = 0
    peak_reserved: int = 0
    _free: dict[bool, list[tuple[int, int]]] = field(default_factory=lambda: {True: [], False: []})
    _by_place: dict[int, _Block] = field(default_factory=dict)
    _given: dict[Hashable, _Block] = field(default_factory=dict)
    _next_place: int = 0

    def allocate(self, name: Hashable, size: int) -> None:
        """Allocate a block of ``size`` bytes under a name."""
        size = rounded(size)
        block = self._take(size) or self._new_segment(size)
        left = block.size - size
        if left >= ROUND if block.is_small else left > _SMALL:
            rest = _Block(left, block.place + size, block.is_small, before=block, after=block.after)
            if block.after is not None:
                block.after.before = rest
            block.after, block.size = rest, size
            self._put_back(rest)
        self._given[name] = block
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)

    def release(self, name: Hashable) -> None:
        """Free the block of this name, and merge it with free neighbors."""
        block = self._given.pop(name)
        self.allocated -= block.size
        after, before = block.after, block.before
        if after is not None and after.is_free:
            self._forget(after)
            block.size += after.size
            block.after = after.after
            if after.after is not None:
                after.after.before = block
        if before is not None and before.is_free:
            self._forget(before)
            before.size += block.size
            before.after = block.after
            if block.after is not None:
                block.after.before = before
            block = before
        self._put_back(block)

    def replay(self, events: Iterable[tuple[Hashable, int]]) -> None:
        """Replay events: (name, bytes) allocates, (name, 0) releases."""
        for name, size in events:
            if size:
                self.allocate(name, size)
            else:
                self.release(name)

    def _take(self, size: int) -> _Block | None:
        free = self._free[size <= _SMALL]
        at = bisect.bisect_left(free, (size, -1))
        if at == len(free):
            return None
        block = self._by_place.pop(free.pop(at)[1])
        block.is_free = False
        return block

    def _new_segment(self, size: int) -> _Block:
        if size <= _SMALL:
            segment = _SMALL_SEGMENT
        elif size < _MEDIUM:
            segment = _MEDIUM_SEGMENT
        else:
            segment = -(-size // _LARGE_ROUND) * _LARGE_ROUND
        block = _Block(segment, self._next_place, size <= _SMALL)
        self._next_place += segment
        self.reserved += segment
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return block

    def _put_back(self, block: _Block) -> None:
        block.is_free = True
        self._by_place[block.place] = block
        bisect.insort(self._free[block.is_small], (block.size, block.place))

    def _forget(self, block: _Block) -> None:
        free = self._free[block.is_small]
        free.pop(bisect.bisect_left(free, (block.size, block.place)))
        del self._by_place[block.place]
