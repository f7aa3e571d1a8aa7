"""Replays loading and steps through the simulated allocator: what PyTorch gives out and reserves for them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from workbench.estimate.trace.allocator import CachingAllocator
from workbench.estimate.trace.tape import CARRIED, Tape

Sizes = tuple[int, int, int]
"""Batch, length and rank of a step."""


@dataclass(frozen=True)
class Resting:
    """What lies on the device beside the step.

    Attributes:
        loading: the events of loading the base, as :meth:`CachingAllocator.replay` takes them.
        adapter: bytes of each of the adapter's tensors.
        states: bytes of each tensor that the optimizer allocates in its first step.
        workspace: bytes of cuBLAS's workspace. The backward pass has one of its own, from its first product on.
    """

    loading: Sequence[tuple[object, int]]
    adapter: Sequence[int]
    states: Sequence[int]
    workspace: int


def replayed(tape: Tape, resting: Resting, steps: Iterable[Sizes]) -> CachingAllocator:
    """The allocator after loading and these steps; its ``peak_allocated`` is of the steps alone."""
    allocator = CachingAllocator()
    allocator.replay(resting.loading)
    allocator.replay((("adapter", place), size) for place, size in enumerate(resting.adapter))
    allocator.allocate("forward workspace", resting.workspace)
    allocator.peak_allocated = allocator.allocated
    gradients = frozenset(tape.gradients)
    kept: list[tuple[int, int]] = []
    for turn, sizes in enumerate(steps):
        alive = _step(allocator, tape, turn, sizes, kept, resting.workspace)
        if turn == 0:
            if all(place != tape.handle for _, place in tape.moves):  # kept before the place was known
                allocator.allocate("backward workspace", resting.workspace)
            allocator.replay((("state", place), size) for place, size in enumerate(resting.states))
        for name in alive:
            if name[1] in gradients:
                allocator.release(name)
        kept = [name for name in alive if name[1] not in gradients]
    return allocator


def _step(
    allocator: CachingAllocator,
    tape: Tape,
    turn: int,
    sizes: Sizes,
    kept: Iterable[tuple[int, int]],
    workspace: int,
) -> list[tuple[int, int]]:
    """Replay one step; returns the blocks that are left, in the order of their allocation."""
    bytes_of = tape.sizes_at(*sizes)
    alive: dict[tuple[int, int], None] = {}
    for number, place in tape.moves:
        name = (turn, number)
        if place == tape.handle:
            if turn == 0:
                allocator.allocate("backward workspace", workspace)
        elif place >= 0:
            alive[name] = None
            allocator.allocate(name, bytes_of[place])
        elif number == CARRIED:
            for left in kept:
                allocator.release(left)
            kept = ()
        else:
            del alive[name]
            allocator.release(name)
    for left in kept:
        allocator.release(left)
    return list(alive)
